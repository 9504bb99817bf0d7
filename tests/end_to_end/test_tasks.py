"""What a user of the SDK does, through the whole line: interchange, broker, our endpoint, our worker, and back."""

from __future__ import annotations

import concurrent.futures
import time

import pytest
from harness.endpoint import wait_for
from harness.functions import divide, double, environment, greet, meet, payload, size_of, triple

WAIT = 60


def test_a_submitted_function_gives_its_value(executor):
    assert executor.submit(double, 21).result(WAIT) == 42


def test_positional_and_keyword_arguments_arrive(executor):
    assert executor.submit(greet, "world", greeting="Good morning").result(WAIT) == "Good morning world"


def test_an_exception_is_raised_with_the_users_own_frames(executor):
    future = executor.submit(divide, 1, 0)
    with pytest.raises(Exception, match=r"(?s)divide.*ZeroDivisionError: division by zero"):
        future.result(WAIT)


def test_a_shell_function_gives_status_and_output(executor):
    from globus_compute_sdk import ShellFunction

    done = executor.submit(ShellFunction("echo {word}; echo wrong >&2; exit 3"), word="right").result(WAIT)
    assert (done.returncode, done.stdout.strip(), done.stderr.split()[0]) == (3, "right", "wrong")


def test_a_shell_function_that_lasts_too_long_is_ended(executor):
    from globus_compute_sdk import ShellFunction

    done = executor.submit(ShellFunction("sleep 60", walltime=0.5)).result(WAIT)
    assert done.returncode == 124


def test_a_result_of_five_megabytes_comes_whole(executor):
    assert executor.submit(payload, 5_000_000).result(WAIT) == b"x" * 5_000_000


def test_an_argument_of_five_megabytes_arrives_whole(executor):
    assert executor.submit(size_of, b"y" * 5_000_000).result(WAIT) == 5_000_000


def test_a_result_over_ten_mebibytes_is_an_error_that_names_the_limit(executor):
    future = executor.submit(payload, 11_000_000)
    with pytest.raises(Exception, match=r"MaxResultSizeExceeded|10485760"):
        future.result(WAIT)


def test_a_thousand_mapped_tasks_give_their_values_in_order(executor):
    start = time.monotonic()
    futures = [executor.submit(double, number) for number in range(1000)]
    values = [future.result(WAIT * 2) for future in futures]
    assert values == [2 * number for number in range(1000)]
    print(f"{1000 / (time.monotonic() - start):.0f} tasks per second")


def test_tasks_run_at_the_same_time_in_different_slots(executor, tmp_path):
    """Each waits for the other, so that both can only end if both run."""
    futures = [executor.submit(meet, str(tmp_path), f"task-{number}", 2, WAIT) for number in range(2)]
    assert len({future.result(2 * WAIT) for future in futures}) == 2


def test_a_task_knows_its_id(executor):
    future = executor.submit(environment, "GC_TASK_UUID")
    assert future.result(WAIT) == future.task_id


def test_registered_source_code_runs(executor):
    source = "import math\n\ndef area(radius):\n    return round(math.pi * radius**2, 3)\n"
    function = executor.register_source_code(source, "area")
    assert executor.submit_to_registered_function(function, args=(2,)).result(WAIT) == 12.566


@pytest.mark.parametrize("serializer", ["JSONData", "DillDataBase64"])
def test_a_result_is_serialized_as_the_client_asks(make_executor, endpoint, serializer):
    executor = make_executor(endpoint)
    executor.result_serializers = [f"globus_compute_sdk.serialize.{serializer}"]
    assert executor.submit(greet, "you").result(WAIT) == "Hello you"


def test_a_result_that_no_asked_serializer_takes_is_an_error(make_executor, endpoint):
    executor = make_executor(endpoint)
    executor.result_serializers = ["globus_compute_sdk.serialize.JSONData"]
    with pytest.raises(Exception, match=r"(?i)serializ"):
        executor.submit(payload, 10).result(WAIT)


def test_each_code_strategy_of_the_client_is_understood(make_executor, endpoint):
    from globus_compute_sdk.serialize import CombinedCode, ComputeSerializer, DillCodeSource, PureSourceTextInspect

    for strategy in (CombinedCode(), DillCodeSource(), PureSourceTextInspect()):
        executor = make_executor(endpoint)
        executor.serializer = ComputeSerializer(strategy_code=strategy)
        assert executor.submit(triple, 5).result(WAIT) == 15, type(strategy).__name__


def test_a_client_runs_a_function_and_fetches_its_result(compute, endpoint):
    function = compute.register_function(double)
    task = compute.run(4, endpoint_id=endpoint.id, function_id=function)

    def result():
        from globus_compute_sdk.errors import TaskPending

        try:
            return compute.get_result(task)
        except TaskPending:
            return None

    assert wait_for(result, "the result", WAIT) == 8


def test_a_client_fetches_the_results_of_a_batch(compute, endpoint):
    function, failing = compute.register_function(double), compute.register_function(divide)
    batch = compute.create_batch()
    for number in range(20):
        batch.add(function, args=(number,))
    batch.add(failing, args=(1, 0))
    tasks = compute.batch_run(endpoint.id, batch)["tasks"]
    (failed,) = tasks[failing]
    ids = tasks[function]

    def done():
        found = compute.get_batch_result(ids)
        return found if all(not entry["pending"] for entry in found.values()) else None

    found = wait_for(done, "every result of the batch", WAIT)
    assert [found[task]["result"] for task in tasks[function]] == [2 * number for number in range(20)]
    with pytest.raises(Exception, match="ZeroDivisionError"):
        wait_for(lambda: not compute.get_task(failed)["pending"] and compute.get_result(failed), "the error", WAIT)


def test_another_client_takes_over_the_tasks_of_a_group(make_executor, endpoint):
    first = make_executor(endpoint)
    futures = [first.submit(double, number) for number in range(5)]
    assert [future.result(WAIT) for future in futures] == [0, 2, 4, 6, 8]
    second = make_executor(endpoint, task_group_id=first.task_group_id)
    # The SDK gives all executors of a process one group, so there are other tests' tasks in it.
    mine = {future.task_id for future in futures}
    again = [future for future in second.reload_tasks() if future.task_id in mine]
    assert sorted(future.result(WAIT) for future in again) == [0, 2, 4, 6, 8]


def test_two_executors_at_once_get_their_own_results(make_executor, endpoint):
    executors = [make_executor(endpoint) for _ in range(2)]
    futures = {
        executor.submit(greet, f"{number}-{place}"): f"Hello {number}-{place}"
        for place in range(50)
        for number, executor in enumerate(executors)
    }
    for future in concurrent.futures.as_completed(futures, timeout=WAIT):
        assert future.result() == futures[future]


def test_the_web_service_says_that_the_endpoint_is_online(compute, endpoint):
    status = compute.get_endpoint_status(endpoint.id)
    assert status["status"] == "online"
    assert compute.get_endpoint_metadata(endpoint.id)["uuid"] == endpoint.id
