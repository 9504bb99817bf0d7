"""The Prometheus operator's own kinds of objects, so that the API server can check what is made for it."""

from __future__ import annotations

from pathlib import Path

from harness.kubernetes import programs
from harness.kubernetes.cluster import Cluster

MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
KINDS = ("podmonitors", "prometheusrules", "servicemonitors")


def definitions() -> list[Path]:
    """The files that define them, from the operator's Go module. RuntimeError if it can not be fetched."""
    folder = programs.download(programs.toolchain(), MODULE) / "example" / "prometheus-operator-crd"
    return [folder / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]


def define(cluster: Cluster) -> None:
    """Makes them known to a cluster."""
    files = [argument for path in definitions() for argument in ("--filename", str(path))]
    # They are too large for the annotation that a client's own apply would write.
    cluster.kubectl("apply", "--server-side", *files)
    names = [f"crd/{kind}.monitoring.coreos.com" for kind in KINDS]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names, timeout=90)
