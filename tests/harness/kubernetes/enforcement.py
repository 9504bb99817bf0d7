"""A node that keeps to NetworkPolicies. The bridge that pods are connected to does not: the API server stores policies, and
nobody reads them, unless this agent runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.kubernetes import addresses
from harness.kubernetes.cluster import Cluster
from harness.kubernetes.images import Builder

_NAME = "kube-network-policies"
_NAMESPACE = "kube-system"
_QUEUE = 100
_SHOWN = [
    ("FORWARD", "--source", addresses.POD_NETWORK),
    ("FORWARD", "--destination", addresses.POD_NETWORK),
    ("INPUT", "--source", addresses.POD_NETWORK),
]
"""What the agent is shown and decides on: new connections from and to pods, and also to the node itself, where the API
server of this cluster is. The agent would ask for most of it by itself, with an expression of nftables that not every
kernel has."""


@contextmanager
def enforced(cluster: Cluster, builder: Builder) -> Iterator[None]:
    """Policies hold while it is open, for connections that are made from then on."""
    image = builder.network_policies()
    cluster.import_image(image.archive)
    cluster.apply(*_objects(image.name))
    try:
        cluster.kubectl(
            *("rollout", "status", "daemonset", _NAME, "--namespace", _NAMESPACE, "--timeout=100s"), timeout=110
        )
        _show(cluster, "--append")
        yield
    finally:
        _show(cluster, "--delete")
        cluster.kubectl("delete", "daemonset", _NAME, "--namespace", _NAMESPACE, "--wait=true", timeout=100)


def _show(cluster: Cluster, order: str) -> None:
    for chain, *which in _SHOWN:
        new = ["--match", "conntrack", "--ctstate", "NEW"]
        queue = ["--jump", "NFQUEUE", "--queue-num", str(_QUEUE), "--queue-bypass"]
        cluster.keeper.run("policies", cluster.inside("iptables", "--wait", order, chain, *which, *new, *queue))


def _objects(image: str) -> list[dict]:
    account = {"kind": "ServiceAccount", "name": _NAME, "namespace": _NAMESPACE}
    rules = [
        {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]},
    ]
    agent = {
        "name": "agent",
        "image": image,
        "imagePullPolicy": "Never",
        "args": [f"--hostname-override={addresses.NODE_NAME}", "--disable-nri", f"--nfqueue-id={_QUEUE}"],
        # The node itself has no way to the Services' addresses.
        "env": [
            {"name": "KUBERNETES_SERVICE_HOST", "value": addresses.NODE},
            {"name": "KUBERNETES_SERVICE_PORT", "value": str(addresses.API_PORT)},
        ],
        "securityContext": {"privileged": True},
    }
    pod = {
        "hostNetwork": True,
        "serviceAccountName": _NAME,
        "terminationGracePeriodSeconds": 1,
        "containers": [agent],
    }
    labels = {"app": _NAME}
    named = {"metadata": {"name": _NAME, "namespace": _NAMESPACE}}
    unbound = {"metadata": {"name": _NAME}}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", **named},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", **unbound, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            **unbound,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": _NAME},
            "subjects": [account],
        },
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            **named,
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
        },
    ]
