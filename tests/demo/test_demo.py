"""`./demo` as a newcomer runs it, and as somebody who kills it runs it."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import checkout, ports, processes
from harness.demo import MARK, STATE
from harness.endpoint import wait_for
from harness.keeper import end_kept, is_kept
from harness.keeper_process import KEEPER_OF
from harness.keeper_process import MARK as KEPT

ROOT = checkout.ROOT

WARM_MAX = 15
"""Seconds to the picture, when all is built and installed."""


def left() -> list[processes.Seen]:
    """What a demo of this checkout left running."""
    return processes.with_environment(KEPT, MARK) + processes.with_environment(KEEPER_OF, MARK)


@pytest.fixture(autouse=True)
def _clean():
    assert not is_kept(MARK), "a demo of this checkout is running; end it with `./demo stop`"
    yield
    end_kept(MARK)


@pytest.fixture
def port():
    return str(ports.free_port())


def demo(*arguments: str, **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        [ROOT / "demo", "--yes", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        **options,
    )


def sourced(command: str, timeout: float = 120) -> str:
    """The output of a command in a shell that has sourced .demo/env."""
    return subprocess.run(
        ["bash", "-c", f"set -eu; . .demo/env; {command}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=timeout,
    ).stdout


def test_it_makes_the_picture_and_leaves_nothing_running(port):
    picture = STATE / "mosaic.png"
    picture.unlink(missing_ok=True)
    run = demo("--port", port)
    output, _ = run.communicate(timeout=600)
    assert run.returncode == 0, output
    assert re.search(r"96 tasks in .* tasks per second\. The picture is right\.", output)
    assert ".demo/mosaic.png" in output
    assert "./demo --keep" in output
    sys.path.insert(0, str(ROOT / "examples"))
    from picture import read_png

    width, height, pixels = read_png(picture.read_bytes())
    assert (width, height) == (768, 552)
    assert len({pixels[start : start + 3] for start in range(0, len(pixels), 3)}) > 10_000, "the picture is dull"
    assert not left()
    assert not (STATE / "running").exists()


def busy_seconds() -> float:
    """For how long the machine's processors have worked since it started, those of other machines on them included."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, *interrupted_and_stolen = map(int, fields[:8])
    return (user + nice + system + sum(interrupted_and_stolen)) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor time of all that this process has started and that has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_second_run_makes_its_picture_in_time(port):
    """Everything is built and installed. What others take of the processors meanwhile is taken off the time."""
    first = demo("--port", port)
    output, _ = first.communicate(timeout=900)
    assert first.returncode == 0, output
    began, busy, own = time.monotonic(), busy_seconds(), own_seconds()
    second = demo("--port", port)
    output, _ = second.communicate(timeout=600)
    took = time.monotonic() - began
    used = own_seconds() - own
    others = max(0.0, busy_seconds() - busy - used)
    assert second.returncode == 0, output
    print(f"{took:.1f} s; processor time: {used:.1f} s, and {others:.1f} s of others")
    assert took - others <= WARM_MAX, output


def test_what_is_kept_serves_programs_of_the_users_own_until_it_is_stopped(port):
    run = demo("--keep", "--port", port)
    output, _ = run.communicate(timeout=600)
    assert run.returncode == 0, output
    assert "./demo stop" in output
    hello = sourced(".demo/venv/bin/python examples/hello.py")
    assert "Hello world" in hello
    assert "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]" in hello
    assert "division by zero" in hello
    name = sourced('echo "$WAYPOST_ENDPOINT_NAME"').strip()
    status = json.loads(sourced(f"{checkout.binary('endpoint')} status {name} --json"))
    assert status["endpoint_id"] == sourced('echo "$WAYPOST_ENDPOINT_ID"').strip()
    assert (STATE / "env").stat().st_mode & 0o077 == 0
    second = demo("--port", port)
    assert "already" in second.communicate(timeout=60)[0]
    assert second.returncode == 1
    stopped = subprocess.run([ROOT / "demo", "stop"], check=True, capture_output=True, text=True, timeout=60)
    assert "ended" in stopped.stdout
    assert not left()
    assert not (STATE / "env").exists()


def test_without_an_endpoint_the_service_is_there_for_one_of_the_users_own(port):
    run = demo("--without-endpoint", "--port", port)
    output, _ = run.communicate(timeout=600)
    assert run.returncode == 0, output
    program = "from globus_compute_sdk import Client; print(Client().get_endpoints())"
    assert sourced(f".demo/venv/bin/python -c '{program}'").strip() == "[]"
    assert not [seen for seen in left() if seen.command.endswith("start demo")]


def test_a_port_in_use_is_told_with_its_owner_and_the_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = demo("--port", str(port))
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert f"port {port} is in use by process {os.getpid()}" in output
    assert "--port" in output
    assert not left()


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("Building Waypost", signal.SIGINT),
        ("Building Waypost", signal.SIGKILL),
        ("Starting RabbitMQ", signal.SIGTERM),
        ("Starting RabbitMQ", signal.SIGKILL),
        ("Starting an endpoint", signal.SIGKILL),
        ("Computing a picture", signal.SIGINT),
        ("Computing a picture", signal.SIGKILL),
    ],
)
def test_a_kill_at_any_step_leaves_no_process(port, step, number, tmp_path):
    log = tmp_path / "output"
    with log.open("w") as output:
        run = subprocess.Popen(
            [ROOT / "demo", "--yes", "--port", port],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            # As at a terminal: a shell's background job would not hear SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_for(lambda: step in log.read_text() or run.poll() is not None, step, 300, 0.01)
        time.sleep(0.3 if step == "Computing a picture" else 0.05)
        run.send_signal(number)
        status = run.wait(60)
    wait_for(lambda: not left(), "the end of everything that the demo started", 30)
    text = log.read_text()
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
        assert "was killed" in text
    else:
        assert status == 130
        assert "interrupted while" in text


def test_a_failure_says_at_what_step_and_where_the_logs_are(port, tmp_path):
    """With so few files a process can't do much."""
    run = demo("--port", port, preexec_fn=_no_more_files)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 1, output
    assert "failed while" in output
    assert ".demo/logs" in output
    assert not left()


def _no_more_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))


def test_the_checkout_stays_clean():
    done = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not [line for line in done.stdout.splitlines() if ".demo" in line or "mosaic" in line]
    assert Path(ROOT / ".demo").is_dir()
