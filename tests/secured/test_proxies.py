"""An endpoint whose way outside is an HTTP proxy. The broker is reached without it."""

from __future__ import annotations

import pytest
from harness.fronts import GLOBUS
from harness.functions import double

WAIT = 120
EX_TEMPFAIL = 75
USER = ("somebody", "a-secret-of-the-proxy")


def test_a_task_runs_by_way_of_a_proxy_that_wants_a_name(authority, broker, start, run, make_proxy):
    """Without any address: the services are Globus's own, as far as the endpoint knows."""
    proxy = make_proxy(user=USER)
    endpoint = start("direct", HTTPS_PROXY=proxy.url, WAYPOST_CA_BUNDLE=str(authority.bundle))
    assert run(endpoint, double, 3) == 6
    assert set(proxy.tunnels) == {f"{host}:443" for host in GLOBUS}, "AMQP does not go by way of it"
    assert proxy.refused == 0
    assert USER[1] not in endpoint.process.said()


def test_a_proxy_is_not_asked_for_a_host_that_is_excepted(authority, interchange, start, run, make_proxy):
    environment = {"WAYPOST_SERVICE_URL": interchange.front.url, "WAYPOST_CA_BUNDLE": str(authority.bundle)}
    proxy = make_proxy()
    start("direct", HTTPS_PROXY=proxy.url, **environment)
    assert set(proxy.tunnels) == {f"localhost:{interchange.front.port}"}, "it is asked for this machine, too"
    excepted = make_proxy()
    endpoint = start("direct", HTTPS_PROXY=excepted.url, NO_PROXY="example.org,localhost", **environment)
    assert run(endpoint, double, 5) == 10
    assert not excepted.tunnels and not excepted.refused


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("somebody:another-secret@", "does not take the name and password that HTTPS_PROXY gives it (407)"),
        ("", "wants a name and a password (407): give them in HTTPS_PROXY"),
    ],
)
def test_a_proxy_that_refuses_is_named_at_once_and_its_password_is_not(authority, start, make_proxy, given, advice):
    """A password that is wrong is no network error: it is tried once."""
    proxy = make_proxy(user=USER)
    address = f"127.0.0.1:{proxy.port}"
    environment = {"HTTPS_PROXY": f"http://{given}{address}", "WAYPOST_CA_BUNDLE": str(authority.bundle)}
    endpoint = start("direct", wait=False, **environment)
    assert endpoint.process.wait(WAIT) == EX_TEMPFAIL
    said = endpoint.process.said()
    assert f"the proxy http://{address} {advice}" in said and "another-secret" not in said, said
    assert proxy.refused == 1 and not proxy.tunnels
