"""Pods by demand: twenty and none, within a budget, and several engines side by side."""

from __future__ import annotations

import json
import time

import pytest
from harness.functions import by_value, double, environment, meet, sleep_and_return
from harness.kubernetes import addresses
from harness.kubernetes.endpoint import IDLE


def test_twenty_pods_come_for_twenty_tasks_that_wait_for_each_other_and_all_go(
    shared, make_engine, make_executor, marks, with_marks
):
    options = {"job_status_kwargs": {"max_idletime": 2}}
    engine = make_engine(shared, max_blocks=20, max_mem="128Mi", engine_options=options, **with_marks)
    executor = make_executor(shared, engine)
    futures = [executor.submit(meet, "/marks", f"task-{number}", 20, 240) for number in range(20)]
    for future in futures:
        future.result(timeout=270)
    assert len({path.name for path in marks.iterdir()}) == 20
    shared.wait_for_pods(0, timeout=120)
    assert shared.secrets() == []


def test_no_more_pods_come_than_the_budget_allows(shared, make_engine, make_executor):
    engine = make_engine(shared, max_blocks=10, init_cpu=0.1, max_cores=0.25, engine_options=IDLE)
    executor = make_executor(shared, engine)
    futures = [executor.submit(sleep_and_return, 3, number) for number in range(6)]
    most = 0
    while not all(future.done() for future in futures):
        most = max(most, len([pod for pod in shared.pods() if "deletionTimestamp" not in pod["metadata"]]))
        time.sleep(0.2)
    assert sorted(future.result() for future in futures) == list(range(6))
    assert most == 2
    shared.wait_for_pods(0)


def test_min_blocks_are_there_without_a_task_and_come_back(make_endpoint, make_engine, make_executor):
    # It keeps its pod for as long as it lives, so it shares its agent with nobody.
    endpoint = make_endpoint("keeping")
    engine = make_engine(endpoint, min_blocks=1, max_blocks=2, engine_options=IDLE)
    executor = make_executor(endpoint, engine)
    assert executor.submit(double, 1).result(timeout=90) == 2
    (pod,) = endpoint.wait_for_pods(1)
    time.sleep(3)
    (same,) = endpoint.pods()
    name = same["metadata"]["name"]
    assert name == pod["metadata"]["name"]
    endpoint.cluster.kubectl("delete", "pod", name, "--namespace", endpoint.workers, "--grace-period=1")

    def another() -> bool:
        return [each["metadata"]["name"] for each in endpoint.pods()] not in ([], [name])

    endpoint.cluster.wait(another, "another pod in place of the one that was deleted", 90)
    assert executor.submit(double, 2).result(timeout=90) == 4
    endpoint.delete(wait=False)


VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


@by_value
def accelerators_of_a_pair(folder, name, variables, seconds):
    """What this task sees of the accelerators, once both are here."""
    import os
    import pathlib
    import time

    (pathlib.Path(folder) / name).write_text("")
    end = time.monotonic() + seconds
    while len(os.listdir(folder)) < 2:
        if time.monotonic() > end:
            raise TimeoutError("the other task did not come")
        time.sleep(0.02)
    return [os.environ.get(variable) for variable in variables]


@pytest.fixture
def node_with_accelerators(shared):
    """The node offers two of an extended resource, as a device plugin would."""
    path = "/status/capacity/waypost.test~1gpu"
    patch = ["patch", "node", "--subresource=status", "--type=json", addresses.NODE_NAME, "-p"]
    shared.cluster.kubectl(*patch, json.dumps([{"op": "add", "path": path, "value": "2"}]))
    yield {"resource": "waypost.test/gpu", "count": 2}
    shared.cluster.kubectl(*patch, json.dumps([{"op": "remove", "path": path}]))


def test_cpu_and_gpu_blocks_live_side_by_side_and_each_slot_sees_an_accelerator_of_its_own(
    shared, node_with_accelerators, make_engine, make_executor, marks, with_marks
):
    plain = make_executor(shared, make_engine(shared, engine_options=IDLE))
    options = {**IDLE, "max_workers_per_node": 2}
    accelerated = make_engine(shared, accelerators=node_with_accelerators, engine_options=options, **with_marks)
    graphics = make_executor(shared, accelerated)
    pair = [graphics.submit(accelerators_of_a_pair, "/marks", name, VARIABLES, 120) for name in ("one", "other")]
    none = plain.submit(environment, VARIABLES[0])
    seen = sorted(future.result(timeout=150) for future in pair)
    assert seen == [["0"] * 3, ["1"] * 3]
    limits = [
        container["resources"].get("limits", {}).get("waypost.test/gpu")
        for pod in shared.pods()
        for container in pod["spec"]["containers"]
        if container["name"] == "worker"
    ]
    assert "2" in limits
    assert none.result(timeout=120) is None
    shared.wait_for_pods(0)
