"""Fixtures for every suite. Services are real and private, and end with the run, whatever ends that."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import checkout
from harness.endpoint import Endpoint, PythonEndpoint
from harness.environments import PythonEnvironment
from harness.interchange import Client, Interchange, client_settings
from harness.keeper import Keeper
from harness.postgresql import PostgreSQL
from harness.rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def keeper() -> Iterator[Keeper]:
    """Starts processes that end with the run."""
    logs = checkout.STATE / "logs" / os.environ.get("WAYPOST_TEST_STAGE", f"pytest-{os.getpid()}")
    with Keeper(logs) as keeper:
        yield keeper


@pytest.fixture(scope="session")
def broker(keeper: Keeper) -> RabbitMQ:
    """A RabbitMQ node. WAYPOST_TEST_BROKER_ROOT names a root with another version in it."""
    root = os.environ.get("WAYPOST_TEST_BROKER_ROOT")
    return RabbitMQ(keeper, root=Path(root) if root else None).start()


@pytest.fixture(scope="session")
def virtual_host(broker: RabbitMQ) -> Callable[[], str]:
    """Makes a virtual host of its own name at each call, and gives the name. Its queues are of the type that
    WAYPOST_TEST_QUEUE_TYPE names, classic if that is unset."""
    numbers = itertools.count(1)

    def make() -> str:
        name = f"tests-{next(numbers)}"
        broker.create_virtual_host(name, os.environ.get("WAYPOST_TEST_QUEUE_TYPE"))
        return name

    return make


@pytest.fixture(scope="session")
def postgresql(keeper: Keeper) -> PostgreSQL:
    """A PostgreSQL server."""
    return PostgreSQL(keeper).start()


@pytest.fixture(scope="session")
def database(postgresql: PostgreSQL) -> Callable[[], str]:
    """Makes an empty PostgreSQL database at each call, and gives its address."""
    numbers = itertools.count(1)
    return lambda: postgresql.create_database(f"tests_{next(numbers)}")


@pytest.fixture(scope="session")
def make_interchange(
    keeper: Keeper, broker: RabbitMQ, virtual_host: Callable[[], str]
) -> Iterator[Callable[..., Interchange]]:
    """Starts an interchange in a virtual host of its own; options as those of `Interchange`."""
    made: list[Interchange] = []

    def make(**options: object) -> Interchange:
        options.setdefault("virtual_host", virtual_host())
        options.setdefault("name", f"interchange-{len(made) + 1}")
        made.append(Interchange(keeper, checkout.binary("interchange"), broker, **options))
        return made[-1].start()

    yield make
    for interchange in made:
        interchange.stop()


@pytest.fixture(scope="session")
def interchange(make_interchange: Callable[..., Interchange], request: pytest.FixtureRequest) -> Interchange:
    """An interchange that tests share. It keeps its data in SQLite, or PostgreSQL if WAYPOST_TEST_DATABASE says so."""
    options = {}
    if os.environ.get("WAYPOST_TEST_DATABASE") == "postgresql":
        options["database"] = request.getfixturevalue("database")()
    return make_interchange(name="interchange", **options)


@pytest.fixture(scope="session")
def client(interchange: Interchange) -> Client:
    """Credentials at the shared interchange."""
    return interchange.create_client("tests")


@pytest.fixture(scope="session")
def in_client_environment(interchange: Interchange, client: Client, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Makes this very process a client of the shared interchange: an SDK that is imported here uses it."""
    settings = client_settings(interchange.port, client, tmp_path_factory.mktemp("client"), interchange.address)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ.update(settings)


@pytest.fixture(scope="session")
def clients(keeper: Keeper) -> Callable[[str], PythonEnvironment]:
    """The environment with the SDK and endpoint of a version, made at the first call."""
    return lambda version: checkout.clients(version).make(keeper)


@pytest.fixture(scope="session", params=checkout.SDK_VERSIONS)
def sdk(request: pytest.FixtureRequest, clients: Callable[[str], PythonEnvironment]) -> PythonEnvironment:
    """Each version of the SDK in turn."""
    return clients(request.param)


@pytest.fixture(scope="session")
def endpoints(keeper: Keeper, interchange: Interchange, client: Client) -> Iterator[Callable[[str], Endpoint]]:
    """The endpoint of ours of a kind, "template" or "direct", that tests share when they leave it as it was. Its
    workers have the SDK of the Python that runs the tests."""
    made: dict[str, Endpoint] = {}

    def get(kind: str) -> Endpoint:
        if kind not in made:
            python = Path(sys.executable)
            binary = checkout.binary("endpoint")
            made[kind] = Endpoint(keeper, binary, interchange, client, kind, f"shared-{kind}", python=python).start()
        return made[kind]

    yield get
    for endpoint in made.values():
        endpoint.stop()


@pytest.fixture
def make_endpoint(
    keeper: Keeper, clients: Callable[[str], PythonEnvironment]
) -> Iterator[Callable[..., Endpoint | PythonEndpoint]]:
    """Starts an endpoint: `make_endpoint(interchange, client, "direct")`, or with `version="4.19.0"` the Python one of
    that version. More options as those of `EndpointUnderTest`. They are stopped after the test."""
    made: list[Endpoint | PythonEndpoint] = []

    def make(
        interchange: Interchange, client: Client, kind: str, version: str | None = None, wait: bool = True, **options
    ) -> Endpoint | PythonEndpoint:
        name = options.pop("name", f"endpoint-{next(_endpoints)}")
        if version is not None:
            made.append(PythonEndpoint(keeper, clients(version), interchange, client, kind, name, **options))
        else:
            options.setdefault("python", clients("4.19.0").python)
            made.append(Endpoint(keeper, checkout.binary("endpoint"), interchange, client, kind, name, **options))
        return made[-1].start(wait=wait)

    yield make
    for endpoint in made:
        if endpoint.process is not None and endpoint.process.running:
            endpoint.stop()


_endpoints = itertools.count(1)

_exit_status = 1


def pytest_sessionfinish(exitstatus: int) -> None:
    global _exit_status
    _exit_status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Ends at once where the SDK was used: its threads would try for half a minute to reach the broker again, which
    ended with the run."""
    if "globus_compute_sdk" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_status)
