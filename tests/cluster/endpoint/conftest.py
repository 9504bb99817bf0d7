"""The flow of a real deployment: images built and imported, the agent as a Deployment, worker pods, and an unmodified SDK
on this machine. Broker and interchange run on this machine, too, at the address by which pods reach it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.functions import leave_mark, sleep_and_return
from harness.interchange import Client, Interchange
from harness.keeper import Keeper
from harness.kubernetes import addresses, endpoint
from harness.kubernetes.cluster import ATTACH, Cluster
from harness.kubernetes.endpoint import KubernetesEndpoint
from harness.kubernetes.images import Builder, Image
from harness.rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def builder(keeper: Keeper) -> Builder:
    return Builder(keeper)


@pytest.fixture(scope="session")
def cluster(keeper: Keeper, builder: Builder) -> Iterator[Cluster]:
    """A Kubernetes that all tests share; each puts back what it breaks. WAYPOST_TEST_CLUSTER takes the one that is up."""
    if os.environ.get(ATTACH):
        cluster = Cluster.attach(keeper)
    else:
        cluster = Cluster(keeper).start(builder.pause().archive, patience=60)
    yield cluster
    cluster.end()


@pytest.fixture(scope="session")
def broker(keeper: Keeper, cluster: Cluster) -> RabbitMQ:
    """A RabbitMQ node that pods reach."""
    return RabbitMQ(keeper, address=addresses.HOST).start()


@pytest.fixture(scope="session")
def interchange(make_interchange: Callable[..., Interchange]) -> Interchange:
    """An interchange that pods reach."""
    return make_interchange(name="interchange", address=addresses.HOST)


@dataclass(frozen=True)
class Images:
    """What pods are made of."""

    agent: Image
    worker: Image
    """Ours, with Python and the SDK."""
    python: Image
    """As users have them, with Python and the SDK and nothing of ours."""


@pytest.fixture(scope="session")
def images(cluster: Cluster, builder: Builder) -> Images:
    """The images, known to the cluster. Their sizes are printed."""
    images = Images(builder.agent(), builder.worker(), builder.python_with_sdk())
    for image in (images.agent, images.worker, images.python):
        print(f"{image.name}: {image.size / 1e6:.1f} MB")
        cluster.import_image(image.archive)
    return images


@pytest.fixture(scope="session", autouse=True)
def _client(images: Images, in_client_environment: None) -> None:
    """Images come first: to make them takes the way out of this machine, which clients of the interchange have not."""


@pytest.fixture(scope="session")
def make_endpoint(
    cluster: Cluster, interchange: Interchange, client: Client, images: Images
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
def make_engine(images: Images) -> Callable[..., dict]:
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


_numbers = itertools.count(1)


@pytest.fixture
def make_executor():
    """An `Executor` of the unmodified SDK, with the client's own brake on calls loosened."""
    from globus_compute_sdk import Executor

    made = []

    def make(target: KubernetesEndpoint, engine: dict | None = None, **options: object):
        if engine is not None:
            # The same options would be the same user endpoint, which keeps what an earlier test did to it.
            options["user_endpoint_config"] = {"engine": engine, "test": next(_numbers), **options.pop("more", {})}
        made.append(Executor(endpoint_id=target.id, api_burst_limit=8, api_burst_window_s=1, **options))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown(wait=False, cancel_futures=True)


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
