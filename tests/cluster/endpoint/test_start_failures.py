"""Pods that never become useful: what the endpoint does, and what the submitter is told."""

from __future__ import annotations

import time

import pytest
from harness.functions import double, greet
from harness.kubernetes.endpoint import IDLE


def refusal(executor, timeout: float = 60) -> str:
    """What the future of a task says that no pod could run."""
    error = executor.submit(double, 21).exception(timeout=timeout)
    assert error is not None, "the task was run"
    return str(error)


def waiting(endpoint, words: str) -> list[str]:
    """The reasons that the status gives for blocks that wait, if the words stand in them."""
    blocks = [block for each in endpoint.status()["user_endpoints"] for block in each["blocks"]]
    return [block["waiting"] for block in blocks if words in (block["waiting"] or "")]


def errors(endpoint, words: str) -> list[str]:
    """The last things that went wrong, by user endpoint, if the words stand in them."""
    last = [each["last_error"] for each in endpoint.status()["user_endpoints"]]
    return [error for error in last if words in (error or "")]


def events_about(endpoint, word: str) -> list[dict]:
    """The Events of Kubernetes in the endpoint's namespaces whose text has a word in it and which the agent wrote."""
    found = []
    for namespace in (endpoint.namespace, endpoint.workers):
        for event in endpoint.cluster.get("events", namespace=namespace)["items"]:
            who = event.get("reportingComponent") or event.get("source", {}).get("component", "")
            if "waypost" in who and word in event.get("message", event.get("note", "")):
                found.append(event)
    return found


def test_a_pod_that_no_node_takes_ends_in_the_schedulers_own_words(shared, make_engine, make_executor):
    engine = make_engine(shared, node_selector={"waypost.test/room": "none"}, scheduling_timeout=4)
    executor = make_executor(shared, engine)
    future = executor.submit(double, 21)
    shared.cluster.wait(lambda: waiting(shared, "node affinity/selector"), "the status to say why")
    shared.cluster.wait(lambda: events_about(shared, "node affinity/selector"), "an Event that says why")
    assert "node affinity/selector" in str(future.exception(timeout=60))
    shared.wait_for_pods(0)


def test_a_task_waits_on_for_a_node_where_that_is_asked_for(shared, make_engine, make_executor):
    label = "waypost.test/late"
    engine = make_engine(
        shared, node_selector={label: "yes"}, scheduling_timeout=1, on_unschedulable="wait", engine_options=IDLE
    )
    future = make_executor(shared, engine).submit(double, 21)
    shared.cluster.wait(lambda: waiting(shared, "node affinity/selector"), "the status to say why")
    time.sleep(3)
    assert not future.done()
    shared.cluster.kubectl("label", "node", "--all", f"{label}=yes")
    try:
        assert future.result(timeout=60) == 42
    finally:
        shared.cluster.kubectl("label", "node", "--all", f"{label}-")
    shared.wait_for_pods(0)


def test_an_image_that_can_not_be_pulled_ends_in_its_name_after_the_grace(shared, make_engine, make_executor):
    engine = make_engine(shared, image="localhost/no-such-image:1", image_grace=3)
    start = time.monotonic()
    said = refusal(make_executor(shared, engine))
    assert "localhost/no-such-image:1" in said
    assert time.monotonic() - start >= 3
    shared.wait_for_pods(0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": "localhost/not-here:1", "image_pull_policy": "Never"}, "ErrImageNeverPull"),
        ({"env_from": [{"secretRef": {"name": "forgotten"}}]}, 'secret "forgotten" not found'),
        # Of this no pod says a word: only its Events do.
        (
            {
                "volumes": [{"name": "data", "secret": {"secretName": "lost"}}],
                "volume_mounts": [{"name": "data", "mountPath": "/data"}],
            },
            'secret "lost" not found',
        ),
    ],
    ids=["an-image-that-must-be-there", "a-secret-that-is-not-there", "a-volume-whose-secret-is-not-there"],
)
def test_what_can_never_work_is_told_at_once(shared, make_engine, make_executor, options, words):
    # The grace and the timeouts are minutes; the answer must not wait for any of them.
    said = refusal(make_executor(shared, make_engine(shared, image_grace=600, **options)), timeout=45)
    assert words in said
    shared.wait_for_pods(0)


def test_a_worker_that_never_dials_ends_in_the_last_lines_of_its_pods_log(shared, make_engine, make_executor):
    # A shell that is the first process of its container hears only what it asks for.
    init = "echo the well is dry; trap 'exit 1' TERM; sleep 600 & wait"
    engine = make_engine(shared, worker_init=init, registration_timeout=4)
    said = refusal(make_executor(shared, engine), timeout=90)
    assert "the well is dry" in said
    shared.wait_for_pods(0, timeout=90)


def test_a_circuit_opens_when_pods_die_at_their_start_and_closes_by_itself_when_one_works(
    shared, make_engine, make_executor, marks, with_marks
):
    init = "test -e /marks/ready || { echo the store is shut; exit 9; }"
    engine = make_engine(shared, worker_init=init, max_blocks=2, engine_options=IDLE, **with_marks)
    executor = make_executor(shared, engine)
    said = refusal(executor, timeout=120)
    assert "the store is shut" in said
    (marks / "ready").touch()
    assert executor.submit(greet, "Ada").result(timeout=120) == "Hello Ada"
    shared.wait_for_pods(0)


def test_a_quota_is_told_in_words_and_the_task_runs_once_it_is_lifted(shared, make_engine, make_executor):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": shared.workers},
        "spec": {"hard": {"pods": "0"}},
    }
    shared.cluster.apply(quota)
    get = lambda: shared.cluster.get("resourcequota", "none", shared.workers)  # noqa: E731
    shared.cluster.wait(lambda: get().get("status", {}).get("hard"), "the quota to be in force")
    try:
        future = make_executor(shared, make_engine(shared, engine_options=IDLE)).submit(double, 21)
        shared.cluster.wait(lambda: errors(shared, "exceeded quota"), "the status to name the quota")
        assert not future.done()
    finally:
        shared.cluster.kubectl("delete", "resourcequota", "none", "--namespace", shared.workers)
    assert future.result(timeout=120) == 42
    shared.wait_for_pods(0)


def test_a_missing_right_is_told_with_its_verb_and_resource(shared, make_engine, make_executor):
    role = shared.cluster.get("role", f"{shared.name}-workers", shared.workers)
    lesser = {**role, "rules": [rule for rule in role["rules"] if "secrets" not in rule["resources"]]}
    shared.cluster.apply({key: lesser[key] for key in ("apiVersion", "kind", "rules")} | {"metadata": named(role)})
    try:
        future = make_executor(shared, make_engine(shared, engine_options=IDLE)).submit(double, 21)
        shared.cluster.wait(lambda: errors(shared, "may not create secrets"), "the status to name verb and resource")
    finally:
        shared.apply()
    assert future.result(timeout=120) == 42
    shared.wait_for_pods(0)


def named(thing: dict) -> dict:
    return {key: thing["metadata"][key] for key in ("name", "namespace")}
