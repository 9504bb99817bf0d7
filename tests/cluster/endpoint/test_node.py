"""What happens to a whole node, and to pods because of others on it. Nothing else can use the cluster meanwhile."""

from __future__ import annotations

import json
import os
import signal

import pytest
from harness.functions import leave_mark_and_wait
from harness.kubernetes import addresses
from harness.kubernetes.endpoint import IDLE
from harness.kubernetes.second_node import SecondNode, tolerations


def test_a_preempted_pod_is_named_so(shared, busy):
    for name, value in (("waypost-low", 1000), ("waypost-high", 2000)):
        shared.cluster.apply(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            }
        )
    allocatable = shared.cluster.get("node", addresses.NODE_NAME)["status"]["allocatable"]["cpu"]
    cores = float(allocatable.removesuffix("m")) / (1000 if allocatable.endswith("m") else 1)
    future, pod = busy(init_cpu=0.6 * cores, max_cpu=cores, priority_class_name="waypost-low", termination_grace=15)
    intruder = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "intruder", "namespace": "default"},
        "spec": {
            "priorityClassName": "waypost-high",
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "pause",
                    "image": "localhost/waypost-pause:1",
                    "imagePullPolicy": "Never",
                    "resources": {"requests": {"cpu": str(0.6 * cores)}},
                }
            ],
        },
    }
    shared.cluster.apply(intruder)
    try:
        said = str(future.exception(timeout=90))
    finally:
        shared.cluster.kubectl("delete", "pod", "intruder", "--namespace", "default", "--wait=true")
    assert pod in said
    assert "reempt" in said
    shared.wait_for_pods(0)


def test_a_drained_node_lets_a_busy_worker_finish_and_idle_ones_go(shared, busy, marks):
    future, pod = busy(seconds=6)
    # Without --force: a pod that no controller owns would be refused.
    drain = ["drain", addresses.NODE_NAME, "--pod-selector=app.kubernetes.io/name=waypost-worker"]
    try:
        shared.cluster.kubectl(*drain, "--delete-emptydir-data", "--timeout=90s", timeout=120)
        assert future.result(timeout=30) == "done"
        assert pod not in [each["metadata"]["name"] for each in shared.pods()]
    finally:
        shared.cluster.kubectl("uncordon", addresses.NODE_NAME)
    shared.wait_for_pods(0)


LOST = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"


@pytest.fixture
def staying(make_endpoint):
    """An endpoint whose agent stays on a node that is lost, for there is no other node."""
    made = make_endpoint("staying")
    tolerate = [{"op": "add", "path": "/spec/template/spec/tolerations", "value": [{"operator": "Exists"}]}]
    made.cluster.kubectl(
        *("patch", "deployment", made.name, "--namespace", made.namespace, "--type=json", "-p", json.dumps(tolerate))
    )
    made.wait_for_roll_out()
    yield made
    made.delete(wait=False)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_task_on_a_node_that_is_lost_is_told_so_or_run_again(
    staying, cluster, make_engine, make_executor, marks, with_marks, retries
):
    """The node says nothing any more, its workers neither, and its administrator declares it lost."""
    options = IDLE | {"max_retries_on_system_failure": retries}
    engine = make_engine(staying, max_blocks=1, engine_options=options, **with_marks)
    future = make_executor(staying, engine).submit(leave_mark_and_wait, "/marks", "begun", "/marks/gate", 600)
    pod = staying.running_pod()
    frozen = staying.processes_of(pod)
    cluster.kill("kubelet")
    try:
        for process in frozen:
            os.kill(process.pid, signal.SIGSTOP)
        cluster.kubectl("taint", "node", addresses.NODE_NAME, LOST)
        if retries == 0:
            said = str(future.exception(timeout=120))
            assert pod in said
            assert addresses.NODE_NAME in said
            assert "DeletionByTaintManager" in said
        else:
            replaced = lambda: [each for each in staying.pods() if each["metadata"]["name"] != pod]  # noqa: E731
            cluster.wait(replaced, "another pod in place of the one that is lost", 120)
    finally:
        cluster.kubectl("taint", "node", addresses.NODE_NAME, f"{LOST}-")
        for process in frozen:
            os.kill(process.pid, signal.SIGCONT)
        cluster.restore("kubelet")
    (marks / "gate").touch()
    if retries:
        assert future.result(timeout=150) == "begun"
    staying.wait_for_pods(0, timeout=120)


@pytest.fixture
def second_node(keeper, cluster, builder, images):
    """A node beside the first, for the agent alone."""
    node = SecondNode(keeper, cluster).start(builder.pause().archive, images.agent.archive)
    yield node
    node.end()


@pytest.fixture
def busy_there(second_node, images, busy):
    """A task in a pod on the second node: its future and the pod's name."""
    second_node.cluster.import_image(images.python.archive, second_node.daemons)
    return busy(
        seconds=600,
        node_selector={"kubernetes.io/hostname": second_node.name},
        tolerations=tolerations(seconds_lost=1),
    )


def test_a_pod_that_is_evicted_because_its_node_is_short_of_memory_is_told_in_the_kubelets_words(
    shared, second_node, busy_there
):
    future, pod = busy_there
    second_node.be_short_of_memory()
    said = str(future.exception(timeout=150))
    assert pod in said
    assert second_node.name in said
    assert "Evicted" in said
    assert "The node was low on resource: memory" in said
    shared.wait_for_pods(0)


def test_a_task_on_a_node_that_nobody_hears_of_any_more_is_told_so_once_kubernetes_gives_the_node_up(
    shared, second_node, busy_there
):
    """No administrator says anything. What Kubernetes waits for (300 s by default) is the pod's own toleration."""
    future, pod = busy_there
    second_node.lose()
    said = str(future.exception(timeout=180))
    assert pod in said
    assert second_node.name in said
    assert "DeletionByTaintManager" in said
    # The kubelet that would say that the pod has ended is not there: it stays until its node is removed.
    second_node.cluster.kubectl("delete", "node", second_node.name)
    shared.wait_for_pods(0, timeout=120)


@pytest.fixture
def on_second_node(second_node, make_endpoint):
    """An endpoint whose agent is on the second node as long as there is one, and is given up soon if it is not."""
    made = make_endpoint("moving")
    there = {
        "weight": 100,
        "preference": {
            "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [second_node.name]}]
        },
    }
    patch = {
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [there]}},
        "tolerations": tolerations(seconds_lost=5),
    }
    made.cluster.kubectl(
        *("patch", "deployment", made.name, "--namespace", made.namespace, "--type=merge"),
        *("-p", json.dumps({"spec": {"template": {"spec": patch}}})),
    )
    made.wait_for_roll_out()
    assert node_of(made, made.agent()) == second_node.name
    made.wait_online()
    yield made
    made.delete(wait=False)


def node_of(endpoint, agent: str) -> str:
    return endpoint.cluster.get("pod", agent, endpoint.namespace)["spec"]["nodeName"]


def test_an_agent_whose_node_is_lost_is_replaced_on_another_and_loses_nothing(on_second_node, second_node, under_load):
    """Its connections do not end: they go silent. Its pod stays in the API until the node is removed from it."""
    lost = on_second_node.agent()
    under_load(on_second_node, second_node.lose, node_selector={"kubernetes.io/hostname": addresses.NODE_NAME})
    next_one = on_second_node.agent()
    assert next_one != lost
    assert node_of(on_second_node, next_one) == addresses.NODE_NAME
    # Nobody is there who could say that it has ended.
    assert lost in [pod["metadata"]["name"] for pod in on_second_node.agents()]
