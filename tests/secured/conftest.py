"""A site whose services have certificates of its own authority: the interchange is reached over https only, the broker
over AMQPS only, and the way outside is a proxy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import checkout
from harness.certificates import Authority
from harness.fronts import GLOBUS, ConnectProxy, TlsFront
from harness.interchange import Client, Interchange
from harness.rabbitmq import RabbitMQ


class SecuredInterchange(Interchange):
    """One whose clients reach it by a front that speaks TLS."""

    front: TlsFront
    authority: Authority

    def client_environment(self, client: Client, folder: Path) -> dict[str, str]:
        """As for any client, with nothing that leads to the service itself; what leads to it over https is up to each."""
        environment = super().client_environment(client, folder)
        for name in ("GLOBUS_SDK_ENVIRONMENT", "GLOBUS_SDK_SERVICE_URL_AUTH", "HTTP_PROXY", "http_proxy"):
            environment.pop(name, None)
        return environment


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def broker(keeper, authority) -> RabbitMQ:
    return RabbitMQ(keeper, "secured-rabbitmq", certificate=authority.issue("localhost")).start()


@pytest.fixture(scope="session")
def interchange(keeper, broker, virtual_host, authority):
    made = SecuredInterchange(
        keeper, checkout.binary("interchange"), broker, name="secured-interchange", virtual_host=virtual_host()
    )
    made.start()
    made.front = TlsFront(authority.issue("localhost", *GLOBUS), made.port)
    yield made
    made.front.close()
    made.stop()


@pytest.fixture(scope="session")
def make_proxy(interchange):
    """Starts proxies, for which Globus's own services are the interchange."""
    made = []

    def make(**options) -> ConnectProxy:
        made.append(ConnectProxy(dict.fromkeys(GLOBUS, interchange.front.port), **options))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture(scope="session", autouse=True)
def _client(interchange, client, authority, make_proxy, tmp_path_factory) -> None:
    """Makes this process a client that believes the authority, and that thinks it calls Globus's own services."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("GLOBUS_")]:
        del os.environ[name]
    os.environ.update(
        {
            "HTTPS_PROXY": make_proxy().url,
            # Of the SDK's calls, and of its connection to the broker.
            "GLOBUS_SDK_VERIFY_SSL": str(authority.bundle),
            "SSL_CERT_FILE": str(authority.bundle),
            "GLOBUS_COMPUTE_CLIENT_ID": client.id,
            "GLOBUS_COMPUTE_CLIENT_SECRET": client.secret,
            "GLOBUS_COMPUTE_USER_DIR": str(tmp_path_factory.mktemp("client")),
        }
    )


@pytest.fixture
def start(interchange, client, make_endpoint):
    """Starts an endpoint in the environment that is given, and nothing else that leads to the service."""

    def start(kind: str, *, wait: bool = True, configuration: str = "", **environment: str):
        return make_endpoint(interchange, client, kind, wait=wait, configuration=configuration, environment=environment)

    return start


@pytest.fixture
def run():
    """Runs a task by the SDK, to its end."""
    from globus_compute_sdk import Executor

    def run(endpoint, function, *arguments, **options):
        with Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1, **options) as executor:
            return executor.submit(function, *arguments).result(120)

    return run
