"""People log in by our program and by Python's, in one storage.db that both use and refresh."""

from __future__ import annotations

import http.client
import http.server
import json
import stat
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from harness import checkout
from harness.endpoint import wait_for
from harness.interchange import Client, Interchange
from harness.login import Program, address_shown, as_version_1, secrets_of

WAIT = 120
PASSWORD = "a password of many words"
NOBODY = Client("", "")
# Both programs take no token in the last minute of its life, so that each use of these is a refresh.
SHORT_LIFE = {"WAYPOST_INTERCHANGE_TOKEN_LIFETIME": "60"}


@pytest.fixture(scope="module")
def service(make_interchange):
    """An interchange whose tokens are refreshed at each use."""
    return make_interchange(environment=SHORT_LIFE)


@pytest.fixture(scope="module")
def ada(service):
    return service.create_user("ada", PASSWORD)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "compute"


@pytest.fixture
def ours(service, folder):
    return Program(checkout.binary("endpoint"), service, folder)


@pytest.fixture
def theirs(service, folder, clients):
    return Program(clients("4.19.0").python.parent / "globus-compute-endpoint", service, folder)


def test_a_login_by_ours_is_used_and_refreshed_by_python_and_the_other_way_round(ours, theirs, ada):
    assert ours.run("whoami", check=False).returncode == 1
    for first, second in ((ours, theirs), (theirs, ours)):
        status, shown = first.login(ada)
        assert status == 0, shown
        assert "Please authenticate with Globus here:" in shown
        path = first.folder / "storage.db"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        before = first.stored()
        assert set(before) == {"funcx_service", "auth.globus.org"}
        assert {data["identity_id"] for data in before.values()} == {ada.id}
        for user in (second, first, second):
            said = user.run("whoami").stdout
            assert "Username" in said and "ada" in said and ada.id in said, said
        after = first.stored()
        name = "auth.globus.org"
        assert before[name]["refresh_token"] == after[name]["refresh_token"]
        assert before[name]["access_token"] != after[name]["access_token"]
        assert set(before[name]) == set(after[name]), "what Python stores, ours stores, too"
        second.run("login")
        assert second.stored() == after, "who is logged in is not asked again"
        second.run("logout")
        assert first.stored() == {}
        assert first.run("whoami", check=False).returncode == 1


def test_both_tell_who_it_is_in_the_same_table(ours, theirs, ada):
    ours.login(ada)
    for arguments in (["whoami"], ["whoami", "--linked-identities"]):
        assert ours.run(*arguments).stdout == theirs.run(*arguments).stdout


def test_what_was_revoked_is_refused_afterwards(ours, ada):
    ours.login(ada)
    kept = (ours.folder / "storage.db").read_bytes()
    assert "Logout succeeded and all cached credentials were revoked" in ours.run("logout").stdout
    (ours.folder / "storage.db").write_bytes(kept)
    done = ours.run("whoami", check=False)
    assert done.returncode == 1
    assert "Please log in again" in done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in secrets_of(ours.stored()))


def test_somebody_else_may_not_take_over_a_login(ours, service, ada):
    ours.login(ada)
    before = ours.stored()
    bob = service.create_user(f"bob-{time.monotonic_ns()}", PASSWORD)
    status, shown = ours.login(bob, "--force")
    assert status == 1
    assert "Detected a change in identity associated with the token data" in shown
    assert ours.stored() == before


def test_without_a_terminal_nobody_is_asked(ours):
    done = ours.run("login", check=False)
    assert done.returncode == 1
    assert "Unable to run native app login flow: stdin is closed or is not a TTY." in done.stderr
    ours.run("configure", "mine")
    done = ours.run("start", "mine", check=False)
    assert done.returncode == 77
    assert "endpoint login" in done.stderr


REQUIREMENTS = {
    "code": "AuthorizationRequired",
    "reason": "This endpoint is for people of one domain.",
    "authorization_parameters": {
        "session_required_single_domain": ["a.example", "b.example"],
        "session_required_policies": ["1a26c3a8-6c5a-4a4e-a1b6-5e5d9e8a8c55"],
        "session_required_mfa": True,
        "prompt": "login",
    },
}
"""What Globus's service answers who is not logged in as an endpoint's policy wants (GARE)."""


class Demanding(http.server.BaseHTTPRequestHandler):
    """Stands between a client and an interchange, and answers the first deletion of an endpoint with a demand."""

    demands = 0
    service: Interchange

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "DELETE" and "/v2/endpoints/" in self.path and type(self).demands == 0:
            type(self).demands += 1
            return self.answer(403, json.dumps(REQUIREMENTS).encode())
        connection = http.client.HTTPConnection(self.service.address, self.service.port, timeout=WAIT)
        connection.request(self.command, self.path, body, dict(self.headers))
        reply = connection.getresponse()
        self.answer(reply.status, reply.read())
        return connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = forward  # noqa: N815

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """It is not of interest who calls."""


@pytest.fixture
def demanding(service):
    """Gives a program's environment a service that demands."""
    servers = []

    def make(program: Program) -> type[Demanding]:
        handler = type("Demanding", (Demanding,), {"service": service})
        server = http.server.ThreadingHTTPServer((service.address, 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        address = f"http://{service.address}:{server.server_port}"
        program.environment |= {"HTTP_PROXY": address, "http_proxy": address}
        return handler

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_login_that_the_service_asks_for_is_asked_for_as_python_does(ours, theirs, ada, demanding):
    ours.login(ada)
    ours.run("configure", "mine")
    ours.run("start", "mine", "--detach")
    ours.run("stop", "mine")
    asked = []
    for program in (theirs, ours):
        handler = demanding(program)
        status, shown = program.at_terminal(ada, "delete", "mine", "--yes", *(["--force"] if program is theirs else []))
        assert handler.demands == 1, shown
        asked.append(parse_qs(urlsplit(address_shown(shown)).query))
        assert status == 0, shown
        if program is theirs:
            ours.run("configure", "mine")
            ours.run("start", "mine", "--detach")
            ours.run("stop", "mine")
    own = {"code_challenge", "prefill_named_grant", "scope"}
    first, second = ({name: value for name, value in each.items() if name not in own} for each in asked)
    assert first == second
    assert second["session_required_single_domain"] == ["a.example,b.example"]
    assert second["session_message"] == [REQUIREMENTS["reason"]]
    assert set(asked[0]["scope"][0].split()) == set(asked[1]["scope"][0].split())


@pytest.mark.parametrize("version", [1, 2])
def test_an_endpoint_runs_on_a_login_of_each_schema_and_refreshes_it(
    ours, service, ada, folder, make_endpoint, clients, version
):
    ours.login(ada)
    if version == 1:
        as_version_1(clients("4.19.0").python, folder)
    before = ours.stored()
    endpoint = make_endpoint(service, NOBODY, "direct", folder=folder, wait=False)
    wait_for(lambda: endpoint.status()["state"] == "running", "the endpoint to run", WAIT)
    if version == 2:
        # The SDK runs on the same login, at the same time.
        submit = "import sys; from globus_compute_sdk import Executor; from harness.functions import double\n"
        submit += "with Executor(endpoint_id=sys.argv[1]) as executor: print(executor.submit(double, 21).result(120))"
        assert ours.run_python(clients("4.19.0").python, submit, endpoint.id) == "42\n"
    credentials = endpoint.status()["credentials"]
    assert (credentials["state"], credentials["of"]) == ("valid", f"identity {ada.id}" if version == 2 else None)
    after = ours.stored()
    assert before["funcx_service"]["access_token"] != after["funcx_service"]["access_token"]
    said = endpoint.process.log.read_text() + json.dumps(endpoint.status())
    assert not any(secret in said for secret in secrets_of(before) | secrets_of(after))
    # One that runs is in the way of a logout.
    assert "currently running: " in ours.run("logout").stdout
    assert ours.stored().keys() == after.keys()
