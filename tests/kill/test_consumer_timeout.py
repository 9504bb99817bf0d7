"""A broker that closes the channel of who does not acknowledge in time, as each does after half an hour."""

from __future__ import annotations

import collections
import os
from pathlib import Path

import pytest
from harness import checkout
from harness.endpoint import wait_for
from harness.functions import double, leave_mark, leave_mark_and_wait
from harness.interchange import Interchange
from harness.rabbitmq import RabbitMQ

WAIT = 120
TIMEOUT_MS = 5_000


@pytest.fixture(scope="module")
def impatient(keeper):
    """A broker with a short time for acknowledgements, that looks for overdue ones twice a second."""
    root = os.environ.get("WAYPOST_TEST_BROKER_ROOT")
    broker = RabbitMQ(
        keeper,
        name="impatient",
        root=Path(root) if root else None,
        settings=f"consumer_timeout = {TIMEOUT_MS}",
        erlang_arguments="-rabbit channel_tick_interval 500",
    ).start()
    yield broker
    broker.end()


@pytest.fixture
def served(keeper, impatient):
    """An interchange on that broker."""
    interchange = Interchange(keeper, checkout.binary("interchange"), impatient, name="with-impatient").start()
    yield interchange
    interchange.stop()


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_tasks_that_run_for_longer_than_the_broker_waits_run_once(served, make_endpoint, become, tmp_path, kind):
    """The first time the broker closes the channel and delivers all again; the endpoint learns its time from that."""
    from globus_compute_sdk import Executor

    client = served.create_client("impatient")
    endpoint = make_endpoint(served, client, kind)
    become(served, client)
    log = served.broker.process.log
    before = len(log.read_text(errors="replace"))

    def timeouts():
        return log.read_text(errors="replace")[before:].count("has timed out")

    marks, gate = tmp_path / "marks", tmp_path / "gate"
    marks.mkdir()
    with Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1) as executor:
        assert executor.submit(double, 1).result(WAIT) == 2
        long = executor.submit(leave_mark_and_wait, str(tmp_path), "long", str(gate), WAIT)
        wait_for((tmp_path / "long").exists, "the long task to run", WAIT)
        waiting = [executor.submit(leave_mark, str(marks), f"early-{number}", 0.3) for number in range(40)]
        wait_for(timeouts, "the broker to close the channel", WAIT)
        later = [executor.submit(leave_mark, str(marks), f"late-{number}", 0.01) for number in range(40)]
        names = [f"{when}-{number}" for when in ("early", "late") for number in range(40)]
        assert [future.result(WAIT) for future in waiting + later] == names
        assert not long.done()
        gate.touch()
        assert long.result(WAIT) == "long"
    runs = collections.Counter(path.name.partition(".")[0] for path in marks.iterdir())
    assert runs == collections.Counter(names)
