"""Releases of the endpoint's chart on a real Kubernetes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from harness.interchange import Client, Interchange
from harness.kubernetes import fixtures
from harness.kubernetes.cluster import Cluster
from harness.kubernetes.helm import Helm
from harness.kubernetes.release import Release

broker, builder, cluster = fixtures.broker, fixtures.builder, fixtures.cluster
images, interchange, make_executor = fixtures.images, fixtures.interchange, fixtures.make_executor


@pytest.fixture(scope="session", autouse=True)
def _client(images: fixtures.Images, in_client_environment: None) -> None:
    """Images come first: to make them takes the way out of this machine, which clients of the interchange have not."""


@pytest.fixture(scope="session")
def installer(cluster: Cluster) -> Helm:
    """Helm, on the cluster."""
    return Helm(cluster)


_numbers = itertools.count(1)


@pytest.fixture
def make_namespace(cluster: Cluster) -> Iterator[Callable[..., str]]:
    """Makes a namespace of a name that no other test has; labels are its own. It is deleted after the test."""
    made: list[str] = []

    def make(**labels: str) -> str:
        name = f"charts-{os.getpid()}-{next(_numbers)}"
        given = {f"pod-security.kubernetes.io/{key}": value for key, value in labels.items()}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": given}})
        made.append(name)
        return name

    yield make
    if made:
        cluster.kubectl("delete", "namespace", *made, "--wait=false")


@pytest.fixture
def make_release(
    installer: Helm,
    interchange: Interchange,
    client: Client,
    images: fixtures.Images,
    make_namespace: Callable[..., str],
) -> Callable[..., Release]:
    """A release that is not installed yet, in a namespace of its own unless one is named; its Secret is there."""

    def make(
        values: dict | None = None, name: str = "lab", namespace: str | None = None, secret: bool = True
    ) -> Release:
        where = namespace or make_namespace()
        release = Release(installer, interchange, images.agent, images.python, name, where, values)
        if secret:
            release.create_secret(f"{name}-credentials", client)
        return release

    return make
