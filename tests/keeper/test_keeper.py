"""The promise on which the demo and every suite rest: nothing that was started outlives its starter."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import processes
from harness.endpoint import wait_for
from harness.keeper import Keeper, KeeperError, ProcessError, end_kept, is_kept

TESTS = Path(__file__).resolve().parents[1]

# Three kinds of process that a plain kill of a process group would miss: one in a session of its own, a daemon that
# forked twice, and one that will not hear SIGTERM. The last says when all three are what they are to be.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
here, there = os.pipe()
between = os.fork()
if between == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(there, b"d")
        time.sleep(600)
    os._exit(0)
os.waitpid(between, 0)
if os.fork() == 0:
    os.setsid()
    os.write(there, b"s")
    time.sleep(600)
for _ in range(2):
    os.read(here, 1)
print("all three are here", flush=True)
time.sleep(600)
"""

STARTER = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from harness.keeper import Keeper
keeper = Keeper(Path(sys.argv[2]), "the starter is gone")
process = keeper.start("stubborn", [sys.executable, "-c", sys.argv[3]], grace=0.1)
folder = keeper.temporary_folder("keeper-test")
while "all three are here" not in process.tail():
    time.sleep(0.01)
print(json.dumps({"mark": keeper.mark, "keeper": keeper.pid, "folder": str(folder)}), flush=True)
time.sleep(600)
"""


@pytest.fixture
def starter(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(TESTS), str(tmp_path), STUBBORN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process, json.loads(process.stdout.readline())
    process.kill()
    process.communicate()


def gone(pid: int) -> bool:
    seen = processes.look_at(pid)
    return seen is None or seen.is_zombie


def nothing_left(started: dict) -> bool:
    left = processes.with_environment("WAYPOST_KEEPER", started["mark"])
    return not left and gone(started["keeper"]) and not Path(started["folder"]).exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_everything_ends_with_a_starter_that_is_killed(starter, number):
    process, started = starter
    assert len(processes.with_environment("WAYPOST_KEEPER", started["mark"])) == 3
    process.send_signal(number)
    wait_for(lambda: nothing_left(started), "the end of everything", 60)
    assert "the starter is gone" in process.stderr.read()


def test_everything_ends_when_the_keeper_itself_is_killed(starter):
    _, started = starter
    os.kill(started["keeper"], signal.SIGKILL)
    wait_for(
        lambda: not processes.with_environment("WAYPOST_KEEPER", started["mark"]), "the end of everything it kept", 60
    )


@pytest.mark.parametrize("keeper_is_killed", [False, True])
def test_what_is_handed_over_lives_on_until_it_is_ended(tmp_path, keeper_is_killed):
    mark = f"handed-over:{tmp_path}"
    keeper = Keeper(tmp_path, mark=mark)
    process = keeper.start("stubborn", [sys.executable, "-c", STUBBORN], grace=0.1)
    process.wait_until(lambda: "all three are here" in process.tail(), "complete")
    keeper.hand_over()
    keeper.end()
    keeper._channel.shutdown(socket.SHUT_RDWR)
    # Time in which a keeper that forgot its promise would end; one that keeps it may have all the time it wants.
    time.sleep(0.2)
    assert is_kept(mark)
    assert processes.look_at(process.pid) is not None
    if keeper_is_killed:
        os.kill(keeper.pid, signal.SIGKILL)
    assert end_kept(mark)
    assert not processes.with_environment("WAYPOST_KEEPER", mark)
    assert not end_kept(mark)


def test_a_failed_start_names_the_program(tmp_path):
    with Keeper(tmp_path) as keeper, pytest.raises(KeeperError, match="no-such-program"):
        keeper.start("missing", ["/no-such-program"])


def test_an_early_end_shows_the_end_of_the_log(tmp_path):
    with Keeper(tmp_path) as keeper:
        process = keeper.start("failing", ["sh", "-c", "echo the reason; exit 3"])
        with pytest.raises(ProcessError, match=r"(?s)status 3.*the reason"):
            process.wait_until(lambda: False, "ready")


def test_a_kill_reaches_what_a_process_left_in_other_sessions(tmp_path):
    with Keeper(tmp_path) as keeper:
        process = keeper.start("parent", ["sh", "-c", "setsid sleep 600 & sleep 600"])
        wait_for(lambda: len(keeper.descendants()) >= 3, "both sleepers")
        assert process.kill() == -signal.SIGKILL
        wait_for(lambda: not keeper.descendants(), "the end of both")
