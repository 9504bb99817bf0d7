"""The life of an endpoint of ours, from configure to delete: what it shows, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import checkout, processes
from harness.endpoint import Endpoint, wait_for
from harness.functions import double, leave_mark_and_wait

WAIT = 60


def belonging_to(endpoint) -> list[processes.Seen]:
    """Every process of an endpoint: the agent, its blocks and their executors."""
    folder = str(endpoint.folder)
    return [
        seen
        for seen in endpoint.keeper.descendants()
        if folder in seen.command or processes.environment_of(seen.pid).get("GLOBUS_COMPUTE_USER_DIR") == folder
    ]


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_a_stopped_and_deleted_endpoint_leaves_no_process_queue_or_user(
    make_executor, make_endpoint, interchange, client, broker, kind
):
    endpoint = make_endpoint(interchange, client, kind)
    identity = endpoint.id
    assert make_executor(endpoint).submit(double, 1).result(WAIT) == 2
    user_endpoints = [entry["id"] for entry in endpoint.status()["user_endpoints"]]
    assert any("--block" in seen.command for seen in belonging_to(endpoint))
    endpoint.run("stop", endpoint.name)
    assert endpoint.process.wait(WAIT) == 0
    wait_for(lambda: not belonging_to(endpoint), "the end of every process of it", WAIT)
    wait_for(lambda: endpoint.service_status() == "offline", "the service to call it offline", WAIT)
    endpoint.run("delete", endpoint.name, "--yes")
    assert not endpoint.own_folder.exists()
    ids = [identity, *user_endpoints]

    def left():
        queues = [name for name in broker.queues(interchange.virtual_host) if any(part in name for part in ids)]
        return queues + [name for name in broker.users() if any(part in name for part in ids)]

    wait_for(lambda: not left(), "the end of its queues and users", 90)


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_sigterm_drains_and_leaves_no_process(make_executor, make_endpoint, interchange, client, kind):
    endpoint = make_endpoint(interchange, client, kind)
    executor = make_executor(endpoint)
    assert executor.submit(double, 1).result(WAIT) == 2
    endpoint.process.send_signal(signal.SIGTERM)
    assert endpoint.process.wait(WAIT) == 0
    wait_for(lambda: not belonging_to(endpoint), "the end of every process of it", WAIT)


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_stop_remote_ends_an_endpoint_that_runs_elsewhere_and_keeps_it_from_starting(
    make_executor, make_endpoint, keeper, interchange, client, kind, tmp_path
):
    """From another machine: a folder with the endpoint's configuration and id, and no process."""
    endpoint = make_endpoint(interchange, client, kind)
    assert make_executor(endpoint).submit(double, 1).result(WAIT) == 2
    python = checkout.clients("4.19.0").python
    elsewhere = Endpoint(
        keeper, checkout.binary("endpoint"), interchange, client, kind, endpoint.name, python=python, folder=tmp_path
    )
    elsewhere.configure()
    for name in ("config.yaml", "endpoint.json"):
        shutil.copy(endpoint.own_folder / name, elsewhere.own_folder)
    elsewhere.run("stop", endpoint.name, "--remote")
    refused = elsewhere.run("start", endpoint.name, check=False)
    assert refused.returncode == 69, refused.stdout + refused.stderr
    assert "stopped remotely" in refused.stdout + refused.stderr
    assert endpoint.process.wait(WAIT) == 0
    wait_for(lambda: not belonging_to(endpoint), "the end of every process of it", WAIT)


def test_the_status_tells_what_is_running(make_executor, make_endpoint, interchange, client, tmp_path):
    endpoint = make_endpoint(interchange, client, "direct")
    executor = make_executor(endpoint)
    gate = tmp_path / "gate"
    names = [f"task-{number}" for number in range(4)]
    futures = [executor.submit(leave_mark_and_wait, str(tmp_path), name, str(gate), 2 * WAIT) for name in names]

    def busy():
        status = endpoint.status()
        return status if json.dumps(status).count("running") and _tasks(status) == (2, 2) else None

    status = wait_for(busy, "two tasks to run and two to wait", WAIT)
    assert status["endpoint_id"] == endpoint.id
    assert status["pid"] == endpoint.process.pid
    gate.touch()
    assert [future.result(WAIT) for future in futures] == names
    text = endpoint.run("status", endpoint.name).stdout
    assert endpoint.id in text
    assert re.search(r"process +\d+, since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \(direct endpoint", text), text


def _tasks(status: dict) -> tuple[int, int]:
    (one,) = status["user_endpoints"]
    return one["tasks_running"], one["tasks_waiting"]


def test_a_second_start_is_refused_while_the_first_runs(endpoints):
    endpoint = endpoints("direct")
    done = endpoint.run("start", endpoint.name, check=False)
    assert done.returncode == 73
    assert "Another instance" in done.stdout + done.stderr


def test_no_secret_is_in_any_log_or_command_line(make_executor, make_endpoint, interchange, client, broker, keeper):
    """The logs of the interchange, of endpoints of both kinds at their most talkative, and all command lines."""
    secrets = {"client secret": client.secret, "broker's administrator": broker.password}
    folders = [keeper.logs, interchange.folder]
    for kind in ("template", "direct"):
        endpoint = make_endpoint(interchange, client, kind, environment={"RUST_LOG": "trace"})
        assert make_executor(endpoint).submit(double, 1).result(WAIT) == 2
        folders.append(endpoint.folder)
        for path, text in _files(endpoint.folder):
            for secret in _broker_passwords(text):
                secrets[f"broker password in {path.name}"] = secret
    assert len(secrets) > 2, "no saved credentials were found: this test would show nothing"
    lines = "\n".join(seen.command for seen in processes.all_processes())
    found = [f"{what} on a command line" for what, secret in secrets.items() if secret in lines]
    for folder in folders:
        for path, text in _files(folder):
            if path.suffix == ".log" or ".log." in path.name:
                found += [f"{what} in {path}" for what, secret in secrets.items() if secret in text]
    assert not found


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below a folder in use, with its text. What goes away meanwhile is passed over."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path, path.read_text(errors="replace")
            except FileNotFoundError:
                pass


def _broker_passwords(text: str) -> set[str]:
    return set(re.findall(r"amqps?://[^:/@\s\"]+:([^@\s\"]{8,})@", text))


def test_files_with_secrets_are_for_their_owner_only(endpoints):
    endpoint = endpoints("template")
    open_to_others = [
        str(path)
        for path, text in _files(endpoint.own_folder)
        if _broker_passwords(text) and path.stat().st_mode & 0o077
    ]
    assert not open_to_others
    assert os.stat(endpoint.own_folder).st_mode & 0o077 == 0


def test_an_endpoint_dumps_no_core_whatever_it_was_allowed_to(make_endpoint, interchange, client):
    """Its memory holds secrets."""
    endpoint = make_endpoint(interchange, client, checkout.KINDS[0], prefix=["prlimit", "--core=4096"])
    limits = Path(f"/proc/{endpoint.process.pid}/limits").read_text()
    soft, hard = re.search(r"^Max core file size +(\S+) +(\S+)", limits, re.MULTILINE).groups()
    assert (soft, hard) == ("0", "4096")
