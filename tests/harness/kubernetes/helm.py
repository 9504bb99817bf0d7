"""Helm, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from harness.kubernetes import programs
from harness.kubernetes.cluster import Cluster


class HelmError(Exception):
    """Helm ended with an error; the text is what it said."""


class Helm:
    """Helm on a cluster, or with none for what only looks at a chart. `program` is that of another version."""

    def __init__(self, cluster: Cluster | None = None, program: Path | None = None):
        self.cluster = cluster
        self.program = program or programs.path(programs.HELM)

    def run(self, *arguments: str | os.PathLike, input: str | None = None, timeout: float = 300) -> str:
        """What Helm prints. HelmError if it fails."""
        done = self.complete(*arguments, input=input, timeout=timeout)
        if done.returncode != 0:
            raise HelmError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def complete(
        self, *arguments: str | os.PathLike, input: str | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess:
        """Runs Helm, whatever its status. Nothing of the user's own Helm is read or written."""
        with tempfile.TemporaryDirectory() as folder:
            kubeconfig = str(self.cluster.kubeconfig) if self.cluster else os.devnull
            environment = {**os.environ, "KUBECONFIG": kubeconfig, "HOME": folder}
            environment |= {f"HELM_{kind}_HOME": folder for kind in ("CACHE", "CONFIG", "DATA")}
            return subprocess.run(
                [self.program, *arguments],
                env=environment,
                input=input or "",
                capture_output=True,
                text=True,
                timeout=timeout,
            )

    def releases(self, namespace: str) -> dict[str, dict]:
        """The releases of a namespace, by name."""
        return {each["name"]: each for each in json.loads(self.run("list", "-n", namespace, "--output", "json"))}
