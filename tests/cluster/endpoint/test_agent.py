"""The agent comes and goes while its workers work: roll-outs, kills, two at a time, and two endpoints."""

from __future__ import annotations

import os
import signal

import pytest
from harness.functions import double


@pytest.fixture
def endpoint(make_endpoint, request):
    """An endpoint of the test's own."""
    made = make_endpoint(f"t{abs(hash(request.node.name)) % 10**8}")
    yield made
    made.delete(wait=False)


def test_a_roll_out_under_load_loses_nothing_and_runs_nothing_twice(endpoint, under_load):
    def roll_out() -> None:
        endpoint.cluster.kubectl("rollout", "restart", "deployment", endpoint.name, "--namespace", endpoint.namespace)
        endpoint.wait_for_roll_out()

    before = endpoint.agent()
    under_load(endpoint, roll_out)
    assert endpoint.agent() != before


def test_a_kill_of_the_agent_under_load_loses_nothing_and_runs_nothing_twice(endpoint, under_load):
    under_load(endpoint, lambda: os.kill(endpoint.agent_process(), signal.SIGKILL))


def test_the_agents_pod_lost_under_load_is_replaced_and_loses_nothing(endpoint, under_load):
    """The pod is gone from the API without a word to its process, as when its node is lost."""

    def lose() -> None:
        lost = endpoint.agent_process()
        os.kill(lost, signal.SIGSTOP)
        endpoint.cluster.kubectl(
            *("delete", "pod", endpoint.agent(), "--namespace", endpoint.namespace, "--force", "--grace-period=0")
        )

    before = endpoint.agent()
    under_load(endpoint, lose)
    assert endpoint.agent() != before


def test_a_second_agent_stands_by_and_takes_over_from_one_that_freezes_and_comes_back(endpoint, under_load):
    def freeze() -> None:
        first, process = endpoint.agent(), endpoint.agent_process()
        scale = ["scale", "deployment", endpoint.name, "--namespace", endpoint.namespace]
        endpoint.cluster.kubectl(*scale, "--replicas=2")
        names = lambda: [pod["metadata"]["name"] for pod in endpoint.agents()]  # noqa: E731
        (second,) = endpoint.cluster.wait(lambda: [name for name in names() if name != first], "a second agent")
        endpoint.wait_for_state("standby", second)
        os.kill(process, signal.SIGSTOP)
        endpoint.wait_for_state("running", second)
        # Two agents are alive from here on. The second is the one that acts.
        os.kill(process, signal.SIGCONT)

    under_load(endpoint, freeze)


def test_two_endpoints_share_a_cluster_and_keep_their_hands_off_each_others_pods(
    make_endpoint, endpoint, make_engine, make_executor
):
    other = make_endpoint(f"{endpoint.name}-b")
    try:
        executors = [
            make_executor(each, make_engine(each, engine_options={"job_status_kwargs": {"max_idletime": 2}}))
            for each in (endpoint, other)
        ]
        futures = [executor.submit(double, number) for executor in executors for number in (1, 2, 3)]
        assert [future.result(timeout=120) for future in futures] == [2, 4, 6, 2, 4, 6]
        endpoint.wait_for_pods(0)
        other.wait_for_pods(0)
    finally:
        other.delete(wait=False)


def test_what_an_endpoint_that_is_gone_for_good_left_goes_with_its_anchor(endpoint, make_engine, make_executor):
    engine = make_engine(endpoint, min_blocks=1)
    assert make_executor(endpoint, engine).submit(double, 3).result(timeout=90) == 6
    endpoint.wait_for_pods(1)
    endpoint.cluster.kubectl("scale", "deployment", endpoint.name, "--namespace", endpoint.namespace, "--replicas=0")
    endpoint.cluster.wait(lambda: endpoint.agents() == [], "the agent's end", 90)
    assert len(endpoint.pods()) == 1
    endpoint.cluster.kubectl("delete", "configmap", f"{endpoint.name}-anchor", "--namespace", endpoint.workers)
    endpoint.wait_for_pods(0, timeout=120)
    assert endpoint.secrets() == []
