"""An endpoint whose login is mounted, as a pod has it from a Secret: revoked, replaced, and kept secret."""

from __future__ import annotations

import json
import stat
import urllib.request
from pathlib import Path

import pytest
from harness import checkout, ports, processes
from harness.endpoint import wait_for
from harness.interchange import Client
from harness.login import Program, secrets_of
from harness.submitter import Submitter

WAIT = 120
NOBODY = Client("", "")
FIRST, SECOND = "a first password of words", "a second password of words"
# The agent renews such a token every few seconds, and so finds out soon that it may not.
SHORT_LIFE = {"WAYPOST_INTERCHANGE_TOKEN_LIFETIME": "60"}


class Mounted:
    """A folder that changes as a kubelet changes a mounted Secret: by the swap of a link."""

    def __init__(self, path: Path):
        self.path = path
        self._versions = 0
        path.mkdir()

    def put(self, **files: bytes) -> None:
        self._versions += 1
        version = self.path / f"..version-{self._versions}"
        version.mkdir()
        for name, content in files.items():
            name = name.replace("storage_db", "storage.db")
            (version / name).write_bytes(content)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        (self.path / "..data_tmp").symlink_to(version.name)
        (self.path / "..data_tmp").rename(self.path / "..data")


@pytest.fixture(scope="module")
def service(make_interchange):
    return make_interchange(environment=SHORT_LIFE)


@pytest.fixture
def mounted(tmp_path):
    return Mounted(tmp_path / "credentials")


@pytest.fixture
def start(service, make_endpoint, mounted, tmp_path):
    """Starts an endpoint that has no credentials but the mounted ones, and metrics."""

    def start(**environment):
        settings = {"WAYPOST_CREDENTIALS_DIR": str(mounted.path), "WAYPOST_HTTP": f"127.0.0.1:{ports.free_port()}"}
        options = {"environment": {**settings, **environment}, "folder": tmp_path / "agent", "wait": False}
        return make_endpoint(service, NOBODY, "direct", **options)

    return start


def state(endpoint) -> tuple[str, str]:
    status = endpoint.status()
    return status["state"], (status["credentials"] or {}).get("state")


def refused(endpoint) -> float:
    """The figure that an alert is made of."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{endpoint.environment['WAYPOST_HTTP']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    line = next(
        line for line in text.splitlines() if line.startswith('waypost_credentials_refused{credential="service"}')
    )
    return float(line.split()[-1])


def logged_in(service, folder: Path, user) -> Program:
    program = Program(checkout.binary("endpoint"), service, folder)
    status, shown = program.login(user)
    assert status == 0, shown
    return program


def test_a_revoked_login_is_told_work_goes_on_and_another_one_mends_it(
    service, mounted, start, keeper, clients, tmp_path
):
    user = service.create_user("carol", FIRST)
    first = logged_in(service, tmp_path / "first", user)
    mounted.put(storage_db=(first.folder / "storage.db").read_bytes())
    endpoint = start()
    wait_for(lambda: state(endpoint) == ("running", "valid"), "the endpoint to run", WAIT)
    assert refused(endpoint) == 0
    kept = endpoint.own_folder / "state" / "tokens"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    secrets = secrets_of(first.stored()) | {data["access_token"] for data in json.loads(kept.read_text())["tokens"]}
    submitter = Submitter(keeper, clients("4.19.0"), first.environment, endpoint.id, tmp_path / "task")

    service.command("user", "password", user.name, text=f"{SECOND}\n")
    wait_for(lambda: state(endpoint)[1] == "refused", "the endpoint to say that its login is refused", WAIT)
    assert refused(endpoint) == 1
    status = endpoint.status()
    assert "invalid_grant" in status["credentials"]["why"]
    assert "credentials      refused" in endpoint.run("status", endpoint.name).stdout
    assert endpoint.process.running
    assert status["user_endpoints"][0]["state"] == "running", "what is in hand goes on"
    assert status["tasks_running"] == 1
    submitter.gate.touch()
    assert submitter.result() == "running", "its result arrives though nobody is logged in any more"

    second = logged_in(service, tmp_path / "second", type(user)(user.id, user.name, SECOND))
    mounted.put(storage_db=(second.folder / "storage.db").read_bytes())
    wait_for(lambda: state(endpoint) == ("running", "valid"), "the endpoint to be well again", WAIT)
    assert refused(endpoint) == 0

    secrets |= secrets_of(second.stored()) | {data["access_token"] for data in json.loads(kept.read_text())["tokens"]}
    log = endpoint.process.said()
    assert "what is in hand goes on" in log and "the credentials are good again" in log
    shown = {
        "log": log,
        "status": json.dumps(status) + endpoint.run("status", endpoint.name).stdout,
        "command line": "\n".join(process.command for process in processes.all_processes()),
        "environment": json.dumps(processes.environment_of(endpoint.process.pid)),
    }
    for where, text in shown.items():
        assert not any(secret in text for secret in secrets), where


def test_refreshed_tokens_outlive_the_agent_and_a_new_storage_goes_before_them(service, mounted, start, tmp_path):
    user = service.create_user("dora", FIRST)
    login = logged_in(service, tmp_path / "first", user)
    content = (login.folder / "storage.db").read_bytes()
    mounted.put(storage_db=content)
    endpoint = start()
    wait_for(lambda: state(endpoint) == ("running", "valid"), "the endpoint to run", WAIT)
    endpoint.kill()
    endpoint.process.wait(WAIT)
    kept = endpoint.own_folder / "state" / "tokens"
    first = json.loads(kept.read_text())
    compute = next(data for data in first["tokens"] if data["resource_server"] == "funcx_service")
    assert compute["access_token"] not in secrets_of(login.stored()), "it was refreshed"
    assert (mounted.path / "storage.db").read_bytes() == content, "it is only read"

    login.login(user, "--force")
    mounted.put(storage_db=(login.folder / "storage.db").read_bytes())
    endpoint.start(wait=False)
    wait_for(lambda: state(endpoint) == ("running", "valid"), "the endpoint to run", WAIT)
    again = json.loads(kept.read_text())
    assert again["source"] != first["source"]
    assert {data["refresh_token"] for data in again["tokens"]} == {
        data["refresh_token"] for data in login.stored().values()
    }


def test_an_agent_that_has_no_credentials_yet_waits_for_them(service, mounted, start):
    client = service.create_client("late")
    wrong = {"GLOBUS_COMPUTE_CLIENT_ID": client.id.encode(), "GLOBUS_COMPUTE_CLIENT_SECRET": b"not-the-secret"}
    endpoint = start()
    wait_for(lambda: state(endpoint) == ("waiting-for-credentials", "missing"), "the endpoint to miss them", WAIT)
    mounted.put(**wrong)
    wait_for(lambda: state(endpoint) == ("waiting-for-credentials", "refused"), "the endpoint to be refused", WAIT)
    assert "not-the-secret" not in endpoint.process.log.read_text() + json.dumps(endpoint.status())
    right = {**wrong, "GLOBUS_COMPUTE_CLIENT_SECRET": client.secret.encode()}
    mounted.put(**right)
    wait_for(lambda: state(endpoint) == ("running", "valid"), "the endpoint to run", WAIT)
    said = endpoint.process.said() + json.dumps(endpoint.status())
    assert "what is in hand goes on" not in said, "there was nothing in hand"
    environment = json.dumps(processes.environment_of(endpoint.process.pid))
    assert client.secret not in said + environment
    assert not [process for process in processes.all_processes() if client.secret in process.command]
