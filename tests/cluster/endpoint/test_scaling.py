"""Pods by demand: twenty and none, the first one asked for at once, several engines side by side."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from datetime import datetime

from harness.functions import double, sleep_and_return


class Watch:
    """Sees pods appear in a namespace, and when: kubectl tells each change as it comes."""

    def __init__(self, cluster, namespace: str):
        self.seen: dict[str, float] = {}
        command = ["get", "pods", "--namespace", namespace, "--watch-only", "--output", "json"]
        self._process = subprocess.Popen(
            [cluster.kubectl_program, "--kubeconfig", cluster.kubeconfig, *command],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        decoder, text = json.JSONDecoder(), ""
        for line in self._process.stdout:
            text += line
            try:
                pod, _ = decoder.raw_decode(text)
            except ValueError:
                continue
            text = ""
            self.seen.setdefault(pod["metadata"]["name"], time.time())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


def test_twenty_pods_come_for_twenty_tasks_and_all_go(shared, make_engine, make_executor):
    engine = make_engine(
        shared, max_blocks=20, max_mem="128Mi", engine_options={"job_status_kwargs": {"max_idletime": 2}}
    )
    executor = make_executor(shared, engine)
    futures = [executor.submit(sleep_and_return, 15, number) for number in range(20)]
    shared.wait_for_pods(20, timeout=60)
    assert sorted(future.result(timeout=240) for future in futures) == list(range(20))
    shared.wait_for_pods(0, timeout=90)
    assert shared.secrets() == []


def test_no_more_pods_come_than_the_budget_allows_and_the_status_says_which(shared, make_engine, make_executor):
    engine = make_engine(
        shared, max_blocks=10, init_cpu=0.1, max_cores=0.25, engine_options={"job_status_kwargs": {"max_idletime": 1}}
    )
    executor = make_executor(shared, engine)
    futures = [executor.submit(sleep_and_return, 3, number) for number in range(6)]
    most = 0
    while not all(future.done() for future in futures):
        most = max(most, len([pod for pod in shared.pods() if "deletionTimestamp" not in pod["metadata"]]))
        time.sleep(0.2)
    assert sorted(future.result() for future in futures) == list(range(6))
    assert most == 2
    assert "max_cores" in json.dumps(shared.status())
    shared.wait_for_pods(0)


def test_min_blocks_are_there_without_a_task_and_come_back(shared, make_engine, make_executor):
    engine = make_engine(shared, min_blocks=1, max_blocks=2, engine_options={"job_status_kwargs": {"max_idletime": 1}})
    executor = make_executor(shared, engine)
    assert executor.submit(double, 1).result(timeout=90) == 2
    (pod,) = shared.wait_for_pods(1)
    time.sleep(3)
    (same,) = shared.pods()
    assert same["metadata"]["name"] == pod["metadata"]["name"]
    name = same["metadata"]["name"]
    shared.cluster.kubectl("delete", "pod", name, "--namespace", shared.workers, "--grace-period=1")

    def another() -> bool:
        return [each["metadata"]["name"] for each in shared.pods()] not in ([], [name])

    shared.cluster.wait(another, "another pod in place of the one that was deleted")
    assert executor.submit(double, 2).result(timeout=90) == 4


def test_cpu_and_gpu_blocks_live_side_by_side_by_what_the_submitter_asks(shared, make_engine, make_executor):
    # The node offers two of an extended resource, as a device plugin would.
    patch = [{"op": "add", "path": "/status/capacity/waypost.test~1gpu", "value": "2"}]
    shared.cluster.kubectl("patch", "node", "--subresource=status", "--type=json", "-p", json.dumps(patch), *node())
    plain = make_executor(shared, make_engine(shared, engine_options={"job_status_kwargs": {"max_idletime": 1}}))
    options = {"job_status_kwargs": {"max_idletime": 1}, "max_workers_per_node": 2}
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


def node() -> list[str]:
    from harness.kubernetes import addresses

    return [addresses.NODE_NAME]


def since(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def test_the_first_pod_is_asked_for_within_a_tenth_of_a_second_of_the_first_task(shared, make_engine, make_executor):
    """From the agent's own log: when the task was received, and when the pod was asked for."""
    watch = Watch(shared.cluster, shared.workers)
    try:
        future = make_executor(
            shared, make_engine(shared, engine_options={"job_status_kwargs": {"max_idletime": 1}})
        ).submit(double, 21)
        assert future.result(timeout=90) == 42
        (name,) = watch.seen
    finally:
        watch.end()
    lines = [json.loads(line) for line in shared.logs().splitlines() if line.startswith("{")]
    asked = next(line for line in lines if name in json.dumps(line))
    received = [line for line in lines if "first task" in json.dumps(line)]
    assert asked, received
    shared.wait_for_pods(0)
