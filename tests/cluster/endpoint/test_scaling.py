"""Pods by demand: twenty and none, within a budget, and several engines side by side."""

from __future__ import annotations

import json
import time

from harness.functions import double, meet, sleep_and_return
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


def test_cpu_and_gpu_blocks_live_side_by_side_by_what_the_submitter_asks(shared, make_engine, make_executor):
    # The node offers two of an extended resource, as a device plugin would.
    patch = [{"op": "add", "path": "/status/capacity/waypost.test~1gpu", "value": "2"}]
    shared.cluster.kubectl(
        "patch", "node", "--subresource=status", "--type=json", "-p", json.dumps(patch), addresses.NODE_NAME
    )
    plain = make_executor(shared, make_engine(shared, engine_options=IDLE))
    options = {**IDLE, "max_workers_per_node": 2}
    accelerated = make_engine(shared, accelerators={"resource": "waypost.test/gpu", "count": 2}, engine_options=options)
    graphics = make_executor(shared, accelerated)
    results = plain.submit(double, 1), graphics.submit(double, 2)
    assert [future.result(timeout=120) for future in results] == [2, 4]
    limits = [
        container["resources"].get("limits", {}).get("waypost.test/gpu")
        for pod in shared.pods()
        for container in pod["spec"]["containers"]
        if container["name"] == "worker"
    ]
    assert "2" in limits
    shared.wait_for_pods(0)
