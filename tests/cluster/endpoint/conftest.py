"""Agents on a cluster that tests share, and engines for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.functions import leave_mark, sleep_and_return
from harness.interchange import Client, Interchange
from harness.kubernetes import endpoint, fixtures
from harness.kubernetes.cluster import Cluster
from harness.kubernetes.endpoint import KubernetesEndpoint

broker, builder, cluster = fixtures.broker, fixtures.builder, fixtures.cluster
images, interchange, make_executor = fixtures.images, fixtures.interchange, fixtures.make_executor


@pytest.fixture(scope="session", autouse=True)
def _client(images: fixtures.Images, in_client_environment: None) -> None:
    """Images come first: to make them takes the way out of this machine, which clients of the interchange have not."""


@pytest.fixture(scope="session")
def make_endpoint(
    cluster: Cluster, interchange: Interchange, client: Client, images: fixtures.Images
) -> Iterator[Callable[..., KubernetesEndpoint]]:
    """Deploys an agent under a name of its own; options as those of `KubernetesEndpoint`."""
    made: list[KubernetesEndpoint] = []

    def make(name: str, wait: bool = True, **options: object) -> KubernetesEndpoint:
        # Other tests may be using the same cluster, and a namespace that is being deleted keeps its name.
        name = f"{name}{len(made) or ''}-{os.getpid()}"
        made.append(KubernetesEndpoint(cluster, interchange, client, images.agent, images.agent, name, **options))
        return made[-1].start(wait=wait)

    yield make
    for each in made:
        each.delete(wait=False)


@pytest.fixture(scope="session")
def shared(make_endpoint: Callable[..., KubernetesEndpoint]) -> KubernetesEndpoint:
    """The agent that tests share which leave it as it was. Each brings an engine of its own."""
    return make_endpoint("shared")


@pytest.fixture(autouse=True)
def _no_pods_are_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails may leave pods of its own. They are removed, so that the next one is not misled by them."""
    yield
    if "shared" not in request.fixturenames:
        return
    target = request.getfixturevalue("shared")

    def none_is_left() -> bool:
        pods = target.pods()
        if pods:
            target.cluster.run_kubectl("delete", "pods", "--all", "--namespace", target.workers, "--grace-period=1")
        return not pods

    target.cluster.wait(none_is_left, "the end of every worker pod", 90)


@pytest.fixture
def make_engine(images: fixtures.Images) -> Callable[..., dict]:
    """An engine on an endpoint's namespace: `make_engine(endpoint, max_blocks=3)`; `engine=...` are options outside the
    provider."""

    def make(target: KubernetesEndpoint, engine_options: dict | None = None, **provider: object) -> dict:
        image = provider.pop("image", images.python.name)
        return endpoint.engine(image, target.workers, provider, **(engine_options or {}))

    return make


@pytest.fixture
def busy(shared, make_engine, make_executor):
    """Starts a task of a minute, and gives its future and its pod's name, once it runs."""

    def make(seconds: float = 60, engine_options: dict | None = None, **provider: object):
        options = endpoint.IDLE | (engine_options or {})
        executor = make_executor(shared, make_engine(shared, engine_options=options, **provider))
        return executor.submit(sleep_and_return, seconds, "done"), shared.running_pod()

    return make


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A folder of this machine that worker pods have at `/marks`, by `with_marks`."""
    folder = tmp_path / "marks"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def with_marks(marks: Path) -> dict:
    """Options of the provider that mount `marks`."""
    return {
        "volumes": [{"name": "marks", "hostPath": {"path": str(marks)}}],
        "volume_mounts": [{"name": "marks", "mountPath": "/marks"}],
    }


def marks_of(folder: Path) -> dict[str, int]:
    """How often each task was begun."""
    counts: dict[str, int] = {}
    for path in folder.iterdir():
        name = path.name.partition(".")[0]
        counts[name] = counts.get(name, 0) + 1
    return counts


TASKS_UNDER_LOAD = 200


@pytest.fixture
def under_load(make_engine, make_executor, marks, with_marks):
    """Submits 200 tasks of 50 ms to two slots, runs something while they are in flight, and checks that each gave its
    result and was begun once."""

    def run(endpoint: KubernetesEndpoint, disturb: Callable[[], None], **provider: object) -> None:
        options = {"max_workers_per_node": 2, "job_status_kwargs": {"max_idletime": 5}}
        engine = make_engine(endpoint, engine_options=options, **with_marks, **provider)
        executor = make_executor(endpoint, engine)
        futures = [executor.submit(leave_mark, "/marks", f"task-{number}", 0.05) for number in range(TASKS_UNDER_LOAD)]
        endpoint.cluster.wait(lambda: len(marks_of(marks)) > 10, "the first tasks to run", 120)
        before = [pod["metadata"]["uid"] for pod in endpoint.pods()]
        disturb()
        results = {future.result(timeout=240) for future in futures}
        assert results == {f"task-{number}" for number in range(TASKS_UNDER_LOAD)}
        assert marks_of(marks) == dict.fromkeys(results, 1)
        after = [pod["metadata"]["uid"] for pod in endpoint.pods()]
        assert set(after) <= set(before), "workers were replaced that were well"
        endpoint.wait_for_pods(0, timeout=90)

    return run
