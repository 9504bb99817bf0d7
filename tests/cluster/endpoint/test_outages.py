"""kill -9 of each part of Kubernetes under load: work goes on, nothing is doubled, scaling resumes."""

from __future__ import annotations

import pytest
from harness.functions import double, leave_mark

TASKS = 60


def counts(folder) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in folder.iterdir():
        name = path.name.partition(".")[0]
        found[name] = found.get(name, 0) + 1
    return found


@pytest.mark.parametrize("name", ["kube-apiserver", "etcd", "kubelet", "containerd"])
def test_work_goes_on_without_it_and_scaling_resumes(
    shared, cluster, make_engine, make_executor, marks, with_marks, name
):
    engine = make_engine(shared, max_blocks=3, engine_options={"job_status_kwargs": {"max_idletime": 2}}, **with_marks)
    executor = make_executor(shared, engine)
    futures = [executor.submit(leave_mark, "/marks", f"task-{number}", 0.2) for number in range(TASKS)]
    cluster.wait(lambda: len(counts(marks)) > 5, "the first tasks to run", 120)
    cluster.kill(name)
    try:
        # Workers that are there finish the work with this part of Kubernetes away.
        results = {future.result(timeout=180) for future in futures}
    finally:
        cluster.restore(name)
    assert results == {f"task-{number}" for number in range(TASKS)}
    assert counts(marks) == dict.fromkeys(results, 1)
    shared.wait_for_pods(0, timeout=120)
    assert executor.submit(double, 5).result(timeout=120) == 10
    shared.wait_for_pods(0, timeout=60)
