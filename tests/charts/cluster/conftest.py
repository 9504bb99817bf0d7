"""Releases of the endpoint's chart on a real Kubernetes."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.interchange import Client, Interchange
from harness.kubernetes import addresses, fixtures
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


@pytest.fixture
def make_volume(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[[], tuple[str, Path]]]:
    """Makes a volume on this machine's disk, which is the node's as well; gives its class and its folder."""
    made: list[str] = []

    def make() -> tuple[str, Path]:
        name, folder = f"charts-{os.getpid()}-{next(_numbers)}", tmp_path / "volume"
        folder.mkdir()
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [addresses.NODE_NAME]}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "64Mi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": name,
                "local": {"path": str(folder)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            },
        }
        cluster.apply(volume)
        made.append(name)
        return name, folder

    yield make
    for name in made:
        cluster.kubectl("delete", "persistentvolume", name, "--wait=false")


@pytest.fixture
def make_platform(cluster: Cluster, make_namespace: Callable[..., str]) -> Iterator[Callable[[], tuple[str, int]]]:
    """Makes a namespace in which pods are given a user and a group, and none may name others, as on OpenShift. Gives its
    name and that user."""
    made: list[str] = []

    def make() -> tuple[str, int]:
        namespace, user = make_namespace(enforce="restricted"), 1_000_660_000
        pods = {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ]
        }
        assigned = "{spec: Object.spec{securityContext: Object.spec.securityContext{runAsUser: %d, fsGroup: %d}}}"
        policies = {
            "Mutating": {
                "matchConstraints": pods,
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConditions": [
                    {
                        "name": "names-no-user",
                        "expression": "!has(object.spec.securityContext) || !has(object.spec.securityContext.runAsUser)",
                    }
                ],
                "mutations": [
                    {
                        "patchType": "ApplyConfiguration",
                        "applyConfiguration": {"expression": f"Object{assigned % (user, user)}"},
                    }
                ],
            },
            "Validating": {
                "matchConstraints": pods,
                "failurePolicy": "Fail",
                "validations": [
                    {
                        "expression": f"object.spec.securityContext.runAsUser == {user} && object.spec.containers.all(each,"
                        f" !has(each.securityContext.runAsUser) || each.securityContext.runAsUser == {user})",
                        "message": f"only the user {user} may run here",
                    }
                ],
            },
        }
        where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        for kind, policy in policies.items():
            version, name = "admissionregistration.k8s.io/v1", {"name": namespace}
            binding = {"policyName": namespace, "matchResources": where}
            if kind == "Validating":
                binding["validationActions"] = ["Deny"]
            cluster.apply(
                {"apiVersion": version, "kind": f"{kind}AdmissionPolicy", "metadata": name, "spec": policy},
                {"apiVersion": version, "kind": f"{kind}AdmissionPolicyBinding", "metadata": name, "spec": binding},
            )
        made.append(namespace)
        # They are in force a moment after they are made.
        probe = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe", "namespace": namespace},
            "spec": {
                "securityContext": {"runAsUser": 1, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "probe",
                        "image": "probe",
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        }
        apply = ["apply", "--dry-run=server", "--filename", "-"]
        cluster.wait(
            lambda: "may run here" in cluster.run_kubectl(*apply, input=json.dumps(probe)).stderr,
            "the policies to be in force",
        )
        return namespace, user

    yield make
    kinds = ",".join(
        f"{kind}admissionpolic{end}" for kind in ("mutating", "validating") for end in ("ies", "ybindings")
    )
    for name in made:
        cluster.kubectl("delete", kinds, name)
