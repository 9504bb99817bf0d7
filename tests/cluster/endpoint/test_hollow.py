"""Many pods, on nodes that run nothing; `tests/bench/kubernetes.py --hollow` does the same with thousands."""

from __future__ import annotations

import subprocess

import pytest
from harness.functions import double
from harness.kubernetes.endpoint import IDLE, KubernetesEndpoint
from harness.kubernetes.hollow import MARK, PLACEMENT, HollowNodes, HollowWorkers

PODS = 100
SECONDS = 120


def kubelets_rules() -> list[str]:
    """What kubelets have laid into this machine's own packet filter; of the cluster's, which is in its own network,
    nothing is seen here."""
    rules = subprocess.run(["nft", "--stateless", "list", "ruleset"], capture_output=True, text=True, check=True)
    return [line for line in rules.stdout.splitlines() if "KUBE-" in line]


@pytest.fixture
def hollow_nodes(keeper, cluster):
    before = kubelets_rules()
    nodes = HollowNodes(keeper, cluster, 2, pods=PODS).start()
    yield nodes
    nodes.end()
    assert kubelets_rules() == before


@pytest.fixture
def make_workers(keeper, cluster):
    made = []

    def make(endpoint, user_endpoint: str) -> HollowWorkers:
        address = endpoint.link_address()
        made.append(HollowWorkers(keeper, cluster.kubeconfig, endpoint.workers, address, user_endpoint))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_a_hundred_pods_are_launched_linked_by_their_own_tokens_and_reaped(
    shared, hollow_nodes, make_workers, make_engine, make_executor
):
    from globus_compute_sdk.serialize import ComputeSerializer

    # Of the image that has the worker's program: an init container that brought it would never end there.
    image = shared.worker_image.name
    engine = make_engine(shared, image=image, max_blocks=PODS, engine_options=IDLE, **PLACEMENT)
    executor = make_executor(shared, engine)
    # Held until there is a link for each.
    futures = [executor.submit(double, number) for number in range(PODS)]
    shared.cluster.wait(shared.pods, "the first pod", 120)
    pods = shared.pods()
    user_endpoint = pods[0]["metadata"]["labels"]["waypost.dev/user-endpoint"]
    workers = make_workers(shared, user_endpoint).start(hold=PODS, data=ComputeSerializer().serialize("hollow"))
    workers.wait_for_links(PODS, timeout=240)
    assert len(shared.pods()) == PODS
    assert {pod["spec"]["nodeName"] for pod in shared.pods()} == set(hollow_nodes.names)
    assert [future.result(timeout=120) for future in futures] == ["hollow"] * PODS
    shared.wait_for_pods(0, timeout=180)
    assert shared.secrets() == []
    said = workers.figures()
    # Each task was run once, and each block had one worker.
    assert said == {"links": 0, "dialled": PODS, "tasks": PODS, "failures": 0}


def test_what_a_killed_benchmark_left_is_removed_with_the_pods_that_no_kubelet_ends(cluster, shared):
    """Its namespaces, and a node whose kubelet was killed with it. On a cluster that stays up the next run finds them."""
    left = KubernetesEndpoint(cluster, shared.interchange, shared.client, shared.image, shared.worker_image, "left")
    names = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in left.namespaces]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "hollow-left", "labels": {MARK: "yes"}}}
    cluster.apply(*names, node)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "held", "namespace": left.workers},
        "spec": {
            "nodeName": "hollow-left",
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "worker", "image": shared.worker_image.name}],
        },
    }
    cluster.wait(
        lambda: cluster.succeeds("get", "serviceaccount", "default", f"--namespace={left.workers}"), "its account"
    )
    cluster.apply(pod)
    left.remove_left()
    for kind, name in (("namespace", left.namespace), ("namespace", left.workers), ("node", "hollow-left")):
        cluster.wait(lambda what=(kind, name): not cluster.succeeds("get", *what), f"the end of {name}", SECONDS)
