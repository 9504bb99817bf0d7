"""The main thing: tasks make pods come, and pods go when there are no tasks."""

from __future__ import annotations

from harness.functions import double, where


def test_a_task_makes_a_pod_come_and_the_pod_goes_when_it_is_idle(shared, make_engine, make_executor):
    assert shared.pods() == []
    executor = make_executor(shared, make_engine(shared, engine_options={"job_status_kwargs": {"max_idletime": 1}}))
    assert executor.submit(double, 21).result(timeout=90) == 42
    (pod,) = shared.pods()
    assert pod["spec"]["restartPolicy"] == "Never"
    place = executor.submit(where).result(timeout=30)
    assert place["parent"] >= 1
    shared.wait_for_pods(0)
    assert shared.secrets() == []
