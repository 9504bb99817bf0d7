"""The login of a person in a pod: the Secret `compute-sdk-tokens` with a storage.db, as Garden-AI's recipe makes it."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from harness import checkout, processes
from harness.interchange import Interchange, User
from harness.kubernetes import addresses
from harness.kubernetes.release import Release
from harness.login import Program, as_version_1, secrets_of

LIFETIME = "WAYPOST_INTERCHANGE_TOKEN_LIFETIME"
EXPIRED, LASTING = "60", "7200"
"""Seconds. Nobody takes a token in the last minute of its life, so those of a minute are of no use from the start."""
SECRET = "compute-sdk-tokens"
TASK = """
import sys
from globus_compute_sdk import Executor
from harness.functions import double
with Executor(endpoint_id=sys.argv[1]) as executor:
    print(executor.submit(double, 21).result(180))
"""


class Site:
    """An interchange that pods reach, and somebody who logs in there."""

    def __init__(self, service: Interchange):
        self.service = service
        self.user: User = service.create_user("ada", "a password of many words")

    def logged_in(self, folder: Path, lifetime: str) -> Program:
        """Logs in anew, for tokens that live so long; those of later refreshes live long."""
        self._restart(lifetime)
        program = Program(checkout.binary("endpoint"), self.service, folder)
        status, shown = program.login(self.user, "--force")
        assert status == 0, shown
        self._restart(LASTING)
        return program

    def _restart(self, lifetime: str) -> None:
        if self.service.environment.get(LIFETIME) != lifetime:
            self.service.stop()
            self.service.environment[LIFETIME] = lifetime
            self.service.start()


@pytest.fixture(scope="module")
def site(make_interchange) -> Site:
    return Site(make_interchange(name="interchange-of-people", address=addresses.HOST))


@pytest.fixture
def install(installer, site, images, make_namespace):
    """Installs the chart for a person, whose storage.db is made a Secret as Garden's recipe says."""

    def install(login: Program) -> Release:
        values = {"useUserCredentials": True, "worker": {"maxIdleTime": 5}}
        release = Release(installer, site.service, images.agent, images.python, "lab", make_namespace(), values)
        release.kubectl("create", "secret", "generic", SECRET, f"--from-file={login.folder / 'storage.db'}")
        release.install()
        release.wait_running()
        return release

    return install


def kept(release: Release) -> dict:
    """What the state Secret keeps of the login."""
    state = release.cluster.get("secret", f"{release.name}-state", release.namespace)
    return json.loads(base64.b64decode(state["data"]["tokens"]))


def tokens(content: dict, kind: str) -> dict[str, str]:
    return {data["resource_server"]: data[kind] for data in content["tokens"]}


def replace_agent(release: Release) -> str:
    """Deletes the agent's pod; gives the name of the next, once that runs."""
    before = release.agent()
    release.kubectl("delete", "pod", before)
    release.wait_running()
    assert release.agent() != before
    return release.agent()


@pytest.mark.parametrize("version", [1, 2])
def test_a_refreshed_token_outlives_the_pod_and_another_login_goes_before_it(site, install, clients, tmp_path, version):
    python = clients("4.19.0").python
    login = site.logged_in(tmp_path / "first", EXPIRED)
    if version == 1:
        as_version_1(python, login.folder)
    release = install(login)
    status = release.status()
    identity = release.id
    # A storage of version 1 does not say whose it is.
    whose = f"identity {site.user.id}" if version == 2 else None
    assert status["credentials"] == {"state": "valid", "of": whose, "why": None}
    first = kept(release)
    stored = login.stored()
    assert tokens(first, "refresh_token") == {name: data["refresh_token"] for name, data in stored.items()}
    assert not secrets_of(stored) & set(tokens(first, "access_token").values()), "each was refreshed"

    replace_agent(release)
    assert release.id == identity
    assert release.status()["credentials"]["state"] == "valid"
    assert kept(release) == first, "the next pod has used what was refreshed, and refreshed nothing"
    secret = release.cluster.get("secret", SECRET, release.namespace)["data"]
    assert base64.b64decode(secret["storage.db"]) == (login.folder / "storage.db").read_bytes(), "it is only read"
    if version == 2:
        # It is the person's own endpoint, for the SDK on the person's machine.
        assert login.run_python(python, TASK, identity) == "42\n"

    second = site.logged_in(tmp_path / "second", EXPIRED)
    release.kubectl("delete", "secret", SECRET)
    release.kubectl("create", "secret", "generic", SECRET, f"--from-file={second.folder / 'storage.db'}")
    replace_agent(release)
    assert release.id == identity
    assert release.status()["credentials"]["state"] == "valid"
    now = second.stored()
    assert tokens(kept(release), "refresh_token") == {name: data["refresh_token"] for name, data in now.items()}
    assert not any(token in json.dumps(kept(release)) for token in secrets_of(stored)), "what was before is forgotten"
    log = release.logs()
    assert not any(token in log for token in secrets_of(now) | secrets_of(stored))


def test_no_other_process_of_its_user_reads_the_agent_s_memory_or_environment(site, install, tmp_path):
    """The kernel gives what it shows of a process that can not be dumped to root."""
    release = install(site.logged_in(tmp_path / "login", LASTING))
    agent = release.agent()
    (seen,) = [each for each in processes.with_environment("WAYPOST_POD_NAME", agent) if "endpoint" in each.command]
    assert os.stat(f"/proc/{seen.pid}").st_uid != 0, "it does not run as root"
    assert {os.stat(f"/proc/{seen.pid}/{name}").st_uid for name in ("environ", "mem")} == {0}
    limits = Path(f"/proc/{seen.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4] == "0"
