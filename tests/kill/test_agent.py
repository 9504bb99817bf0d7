"""The agent dies, or is away, and no task is lost or run twice."""

from __future__ import annotations

import collections
import random
import statistics
import time
from pathlib import Path

import pytest
from harness.endpoint import wait_for
from harness.functions import double, leave_mark, leave_mark_and_wait, segfault, where

WAIT = 120
FORGOTTEN_WAIT = 300


def runs(folder: Path) -> collections.Counter:
    """How often each task ran, by the marks that the runs left."""
    return collections.Counter(path.name.partition(".")[0] for path in folder.iterdir())


@pytest.mark.parametrize("when", [0.1, 0.4, 1.0, 2.0])
def test_tasks_in_flight_outlive_a_kill_of_the_agent_and_run_once(endpoint, executor, tmp_path, when):
    """200 tasks of 50 ms; SIGKILL to the agent, and a start at once."""
    executor.submit(double, 1).result(WAIT)
    futures = [executor.submit(leave_mark, str(tmp_path), f"task-{number}", 0.05) for number in range(200)]
    wait_for(lambda: len(list(tmp_path.iterdir())) >= 1, "the first task to run", WAIT)
    time.sleep(when)
    before = runs(tmp_path)
    endpoint.kill()
    endpoint.start(wait=False)
    results = [future.result(WAIT) for future in futures]
    assert results == [f"task-{number}" for number in range(200)]
    assert len(before) < 200, "all tasks had run before the kill: the test shows nothing"
    counts = runs(tmp_path)
    assert len(counts) == 200
    assert [name for name, count in counts.items() if count > 1] == []


def test_an_agent_that_is_killed_again_and_again_loses_nothing(endpoint, executor, tmp_path):
    executor.submit(double, 1).result(WAIT)
    futures = [executor.submit(leave_mark, str(tmp_path), f"task-{number}", 0.05) for number in range(200)]
    dice = random.Random(7)
    for _ in range(4):
        time.sleep(dice.uniform(0.2, 1.2))
        endpoint.kill()
        endpoint.start(wait=False)
    assert [future.result(WAIT) for future in futures] == [f"task-{number}" for number in range(200)]
    assert [name for name, count in runs(tmp_path).items() if count > 1] == []


def test_a_start_right_after_a_kill_is_not_refused_for_a_stale_pid_file(endpoint):
    endpoint.kill()
    endpoint.start()
    assert endpoint.process.running


def test_a_segfault_is_told_within_half_a_second_and_the_slot_is_back(endpoint, executor, tmp_path):
    """From the moment before, as the task noted it, until the service has the result. The client's own times are left
    out: it gathers submits for up to half a second, and looks for results each half second. Of five the median: what
    else the machine does may hold up one."""
    executor.submit(double, 1).result(WAIT)
    took = []
    for number in range(5):
        noted = tmp_path / f"noted-{number}"
        dying = executor.submit(segfault, str(noted))
        with pytest.raises(Exception, match="SIGSEGV|signal 11"):
            dying.result(WAIT)
        took.append(float(endpoint.task(dying.task_id)["completion_t"]) - float(noted.read_text()))
        assert executor.submit(double, number).result(WAIT) == 2 * number
    assert statistics.median(took) < 0.5, took


def test_the_tasks_of_a_killed_worker_block_end_with_its_reason(endpoint, executor, tmp_path):
    pid = executor.submit(where).result(WAIT)["pid"]
    never = str(tmp_path / "never")
    names = [f"task-{number}" for number in range(2)]
    futures = [executor.submit(leave_mark_and_wait, str(tmp_path), name, never, 2 * WAIT) for name in names]
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2, "both tasks to run", WAIT)
    from harness import processes

    block = next(
        seen
        for seen in endpoint.keeper.descendants()
        if "worker" in seen.command
        and "--block" in seen.command
        and pid in {below.pid for below in processes.descendants(seen.pid)}
    )
    processes.kill(block.pid)
    for future in futures:
        with pytest.raises(Exception, match="(?i)worker|block|killed|SIGKILL"):
            future.result(WAIT)
    assert executor.submit(double, 2).result(WAIT) == 4


def test_tasks_sent_while_the_agent_is_down_are_run_when_it_is_back(endpoint, executor):
    """200 s pass in the agent's eyes: it starts with a clock that is ahead."""
    executor.submit(double, 1).result(WAIT)
    endpoint.kill()
    wait_for(lambda: not endpoint.process.running, "the end of the agent")
    futures = [executor.submit(double, number) for number in range(50)]
    wait_for(lambda: all(future.task_id for future in futures), "all tasks to be submitted", WAIT)
    endpoint.prefix = ["faketime", "-f", "+200s"]
    endpoint.start(wait=False)
    assert [future.result(WAIT) for future in futures] == [2 * number for number in range(50)]


class Doubles:
    """A batch of tasks, asked for by `Client`, since the SDK's `Executor` may break for good when it acks just as its
    broker dies."""

    def __init__(self, endpoint, count: int):
        from globus_compute_sdk import Client

        self._compute = Client()
        function = self._compute.register_function(double)
        batch = self._compute.create_batch()
        for number in range(count):
            batch.add(function, args=(number,))
        self._tasks = self._compute.batch_run(endpoint.id, batch)["tasks"][function]

    def _found(self) -> list | None:
        found = {}
        for start in range(0, len(self._tasks), 500):
            found |= self._compute.get_batch_result(self._tasks[start : start + 500])
        return None if any(task["pending"] for task in found.values()) else [found[task] for task in self._tasks]

    def wait_right(self, seconds: float) -> None:
        """Returns when each has its own result."""
        found = wait_for(self._found, "every result", seconds, interval=0.5)
        assert [task["result"] for task in found] == [2 * number for number in range(len(found))]


def test_a_thousand_tasks_outlive_a_kill_of_the_broker(endpoint, executor, broker):
    executor.submit(double, 1).result(WAIT)
    executor.shutdown()
    doubles = Doubles(endpoint, 1000)
    broker.kill()
    broker.start()
    doubles.wait_right(FORGOTTEN_WAIT)


# With one kind of endpoint, for it takes long and the agent has no part in it.
@pytest.mark.parametrize("endpoint", ["template"], indirect=True)
def test_the_first_tasks_outlive_a_kill_of_the_broker_right_after_they_were_accepted(endpoint, broker):
    """RabbitMQ 4 then forgets a new quorum queue, but for its name, and takes 65 s to notice."""
    doubles = Doubles(endpoint, 20)
    broker.kill()
    broker.start()
    doubles.wait_right(FORGOTTEN_WAIT)
