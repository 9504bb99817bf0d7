"""An endpoint of a site with its own authority: what it believes, and what it says of what it does not believe."""

from __future__ import annotations

import pytest
from harness import checkout
from harness.endpoint import wait_for
from harness.fronts import TlsFront
from harness.functions import double

WAIT = 120
EX_TEMPFAIL = 75


def ports(broker, endpoint) -> set[tuple[bool, int]]:
    """Whether by TLS, and on which port the endpoint and its user endpoints are connected, in the broker's words; nothing
    until it knows of each, for it lists connections a little late."""
    known = {endpoint.id, *(each["id"] for each in endpoint.status()["user_endpoints"])}
    seen = {(each["user"], each["ssl"], each["port"]) for each in broker.api("GET", "/api/connections")}
    own = {(user, *rest) for user, *rest in seen if any(identity in user for identity in known)}
    complete = all(any(identity in user for user, *_ in own) for identity in known)
    return {(ssl, port) for _, ssl, port in own} if complete else set()


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_a_task_runs_over_https_and_amqps(interchange, broker, authority, start, run, kind):
    bundle = {"WAYPOST_SERVICE_URL": interchange.front.url, "WAYPOST_CA_BUNDLE": str(authority.bundle)}
    endpoint = start(kind, **bundle)
    assert run(endpoint, double, 21) == 42
    seen = wait_for(lambda: ports(broker, endpoint), "the broker to list the connections", WAIT)
    assert seen == {(True, broker.tls_ports[0])}


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_the_port_of_the_configuration_is_dialled_in_place_of_the_service_s(
    interchange, broker, authority, start, run, kind
):
    """As `amqp_port: 443` does where the firewall lets nothing else through."""
    port = broker.tls_ports[1]
    bundle = {"WAYPOST_SERVICE_URL": interchange.front.url, "WAYPOST_CA_BUNDLE": str(authority.bundle)}
    endpoint = start(kind, configuration=f"amqp_port: {port}\n", **bundle)
    assert run(endpoint, double, 4, amqp_port=port) == 8
    seen = wait_for(lambda: ports(broker, endpoint), "the broker to list the connections", WAIT)
    assert seen == {(True, port)}


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_the_bundle_alone_is_enough_where_the_machine_has_no_root_certificates(
    interchange, broker, authority, start, run, kind, tmp_path
):
    """As in an image without the package ca-certificates."""
    (tmp_path / "none").mkdir()
    (tmp_path / "none.pem").touch()
    endpoint = start(
        kind,
        WAYPOST_SERVICE_URL=interchange.front.url,
        WAYPOST_CA_BUNDLE=str(authority.bundle),
        SSL_CERT_FILE=str(tmp_path / "none.pem"),
        SSL_CERT_DIR=str(tmp_path / "none"),
    )
    assert run(endpoint, double, 8) == 16
    seen = wait_for(lambda: ports(broker, endpoint), "the broker to list the connections", WAIT)
    assert seen == {(True, broker.tls_ports[0])}


def test_without_the_bundle_the_start_is_refused_and_the_option_named(interchange, start):
    endpoint = start("direct", wait=False, WAYPOST_SERVICE_URL=interchange.front.url)
    assert endpoint.process.wait(WAIT) == EX_TEMPFAIL
    said = endpoint.process.said()
    assert "UnknownIssuer" in said and "name a PEM file with its certificate by WAYPOST_CA_BUNDLE" in said, said
    assert endpoint.service_status() == "unknown", "it is not registered"


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_a_broker_that_is_not_believed_is_told_and_the_option_named(interchange, authority, start, kind):
    """The SDK's own variable is for https alone."""
    endpoint = start(
        kind,
        wait=False,
        WAYPOST_SERVICE_URL=interchange.front.url,
        GLOBUS_SDK_VERIFY_SSL=str(authority.bundle),
    )

    def told() -> bool:
        log = endpoint.process.said()
        return "UnknownIssuer" in log and "WAYPOST_CA_BUNDLE" in log

    wait_for(told, "the endpoint to say that it does not believe the broker", WAIT)
    if kind == "direct":

        def shown() -> str | None:
            return next((each["last_error"] for each in endpoint.status()["user_endpoints"]), None)

        error = wait_for(shown, "the error in its status", WAIT)
        assert "name a PEM file with its certificate by WAYPOST_CA_BUNDLE" in error
    assert endpoint.process.running, "a broker's certificate may be mended"
    assert endpoint.service_status() == "offline"


def test_a_certificate_for_another_name_is_not_mended_by_a_bundle(authority, interchange, start):
    front = TlsFront(authority.issue("elsewhere.example"), interchange.port)
    try:
        environment = {"WAYPOST_SERVICE_URL": front.url, "WAYPOST_CA_BUNDLE": str(authority.bundle)}
        endpoint = start("direct", wait=False, **environment)
        assert endpoint.process.wait(WAIT) == EX_TEMPFAIL
        said = endpoint.process.said()
        assert "not valid for name" in said and "WAYPOST_CA_BUNDLE" not in said, said
    finally:
        front.close()
