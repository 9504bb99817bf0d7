"""Pods that end while they work: what the task's error names, and what goes on."""

from __future__ import annotations

import json
import signal
import time

import pytest
from harness import processes
from harness.functions import by_value, double, leave_mark_and_wait, sleep_and_return
from harness.kubernetes import addresses
from harness.kubernetes.endpoint import IDLE


@by_value
def swallow(megabytes, pause):
    """Takes memory, 4 MB at a time."""
    import time

    held = []
    while len(held) * 4 < megabytes:
        held.append(b"x" * (4 << 20))
        time.sleep(pause)
    return len(held)


def test_a_pod_deleted_by_hand_is_named_in_its_tasks_error_at_once(shared, busy):
    future, pod = busy()
    start = time.monotonic()
    shared.cluster.kubectl("delete", "pod", pod, "--namespace", shared.workers, "--grace-period=1", "--wait=false")
    said = str(future.exception(timeout=30))
    assert pod in said
    assert "deleted" in said
    assert time.monotonic() - start < 15
    shared.wait_for_pods(0)


def test_a_task_whose_pod_is_deleted_is_run_again_where_retries_are_allowed(shared, busy):
    future, pod = busy(seconds=5, engine_options={"max_retries_on_system_failure": 1})
    shared.cluster.kubectl("delete", "pod", pod, "--namespace", shared.workers, "--grace-period=1", "--wait=false")
    assert future.result(timeout=90) == "done"
    shared.wait_for_pods(0)


def test_the_fat_task_ends_for_want_of_memory_and_its_neighbour_goes_on(shared, make_engine, make_executor):
    engine = make_engine(shared, max_mem="384Mi", engine_options=IDLE | {"max_workers_per_node": 2})
    executor = make_executor(shared, engine)
    neighbour = executor.submit(sleep_and_return, 8, "still here")
    shared.cluster.wait(lambda: shared.status()["tasks_running"] >= 1, "a task to run", 90)
    fat = executor.submit(swallow, 600, 0.05)
    said = str(fat.exception(timeout=60))
    assert "memory" in said
    assert neighbour.result(timeout=60) == "still here"
    shared.wait_for_pods(0)


@pytest.fixture
def a_pair(shared, make_engine, make_executor, marks, with_marks):
    """Two tasks side by side in one pod that wait for the gate: their futures and the pod's name. Version 2 of control
    groups ends what is in such a container by SIGKILL to all at once when its memory runs out."""

    def make(retries: int) -> tuple[list, str]:
        options = IDLE | {"max_workers_per_node": 2, "max_retries_on_system_failure": retries}
        executor = make_executor(shared, make_engine(shared, engine_options=options, **with_marks))
        futures = [
            executor.submit(leave_mark_and_wait, "/marks", name, "/marks/gate", 120) for name in ("first", "second")
        ]
        shared.cluster.wait(lambda: len(list(marks.iterdir())) == 2, "both tasks to run", 120)
        return futures, shared.running_pod()

    return make


def kill_group(endpoint, pod: str) -> None:
    """SIGKILL to every process of a pod's containers, none of which can say of another before its own end."""
    group = sorted(process.pid for process in endpoint.processes_of(pod))
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in group:
            processes.kill(pid, number)


def test_each_task_of_a_container_that_is_killed_as_a_whole_is_told_of_its_pod(shared, a_pair):
    futures, pod = a_pair(retries=0)
    kill_group(shared, pod)
    for future in futures:
        said = str(future.exception(timeout=30))
        assert pod in said
        assert addresses.NODE_NAME in said
        assert "137" in said or "SIGKILL" in said or "OOMKilled" in said
    shared.wait_for_pods(0)


def test_the_tasks_of_a_container_that_is_killed_as_a_whole_are_run_again_where_retries_are_allowed(
    shared, a_pair, marks
):
    futures, pod = a_pair(retries=1)
    kill_group(shared, pod)
    (marks / "gate").touch()
    assert [future.result(timeout=120) for future in futures] == ["first", "second"]
    assert pod not in [
        each["metadata"]["name"] for each in shared.pods() if "deletionTimestamp" not in each["metadata"]
    ]
    shared.wait_for_pods(0)


def test_an_eviction_that_cuts_a_task_off_names_pod_and_node(shared, busy):
    future, pod = busy(seconds=300)
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": shared.workers},
        "deleteOptions": {"gracePeriodSeconds": 2},
    }
    path = f"/api/v1/namespaces/{shared.workers}/pods/{pod}/eviction"
    shared.cluster.kubectl("create", "--raw", path, "--filename", "-", input=json.dumps(body))
    said = str(future.exception(timeout=60))
    assert pod in said
    assert addresses.NODE_NAME in said
    assert "vict" in said
    shared.wait_for_pods(0)


@by_value
def fill(path, megabytes, seconds):
    """Writes a file, and waits."""
    import time

    with open(path, "wb") as file:
        file.write(b"x" * (megabytes << 20))
    time.sleep(seconds)


def test_a_pod_that_the_kubelet_evicts_is_told_in_its_words(shared, make_engine, make_executor):
    # Of the kubelet's reasons the one that asks nothing of the rest of the machine.
    volume = {"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}
    mount = {"name": "scratch", "mountPath": "/scratch"}
    engine = make_engine(shared, volumes=[volume], volume_mounts=[mount], engine_options=IDLE)
    future = make_executor(shared, engine).submit(fill, "/scratch/file", 8, 300)
    pod = shared.running_pod()
    said = str(future.exception(timeout=150))
    assert pod in said
    assert addresses.NODE_NAME in said
    assert "Evicted" in said
    assert 'EmptyDir volume "scratch" exceeds the limit "1Mi"' in said
    shared.wait_for_pods(0)


def test_a_worker_beside_a_sidecar_that_never_ends_is_deleted_at_once(shared, make_engine, make_executor):
    sidecar = {
        "name": "sidecar",
        "image": "localhost/waypost-pause:1",
        "imagePullPolicy": "Never",
        "resources": {"limits": {"cpu": "100m", "memory": "16Mi"}},
    }
    executor = make_executor(shared, make_engine(shared, sidecars=[sidecar], engine_options=IDLE))
    assert executor.submit(double, 4).result(timeout=90) == 8
    (pod,) = shared.pods()
    assert {container["name"] for container in pod["spec"]["containers"]} >= {"worker", "sidecar"}
    shared.wait_for_pods(0)
    # A worker that dies beside it ends the block, too.
    future = executor.submit(sleep_and_return, 60, "never")
    name = shared.running_pod()
    for process in shared.processes_of(name):
        processes.kill(process.pid)
    assert name in str(future.exception(timeout=30))
    shared.wait_for_pods(0)


def test_a_failed_pod_is_kept_where_that_is_asked_for_and_goes_with_the_anchor(shared, busy):
    future, pod = busy(keep_failed_pods=1)
    for process in shared.processes_of(pod):
        processes.kill(process.pid)
    assert future.exception(timeout=30) is not None
    time.sleep(2)
    kept = shared.cluster.get("pod", pod, shared.workers)
    assert kept["status"]["phase"] == "Failed"
    shared.cluster.kubectl("delete", "pod", pod, "--namespace", shared.workers)
