"""The flow of a real deployment: images built and imported, the agent by its chart, worker pods, and an unmodified SDK
on this machine. Broker and interchange run on this machine, too, at the address by which pods reach it.

Fixtures for suites with a cluster; their conftest.py imports those that they use."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from harness.interchange import Interchange
from harness.keeper import Keeper
from harness.kubernetes import addresses
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
