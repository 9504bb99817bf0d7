"""What `./demo --kubernetes` does differently: a cluster, the endpoint as a Deployment, and pods that come and go."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator

from harness.interchange import Client, Interchange
from harness.keeper import Keeper
from harness.kubernetes import cluster as clusters
from harness.kubernetes import images, programs
from harness.kubernetes.cluster import Cluster
from harness.kubernetes.endpoint import KubernetesEndpoint, engine
from harness.kubernetes.images import Builder

PODS = 4
"""The most worker pods that the demo has at a time."""


def packages() -> list[str]:
    """What apt has to bring beside what every demo needs."""
    return [*clusters.PACKAGES, *images.PACKAGES, *([] if programs.go() else ["golang-go"])]


def plan() -> list[str]:
    """What will be built, in words, if it is not there yet."""
    if not programs.missing(programs.CLUSTER):
        return []
    place = programs.path(programs.CLUSTER[0]).parents[1]
    what = "Kubernetes, etcd, containerd and Helm (some 9 minutes, and 6 GB in Go's own caches)"
    return [f"with Go, into {place}/: {what}"]


def start_cluster(keeper: Keeper) -> Cluster:
    """A cluster that ends with the keeper."""
    return Cluster(keeper).start(Builder(keeper).pause().archive, patience=5)


def deploy(keeper: Keeper, cluster: Cluster, interchange: Interchange, client: Client, name: str) -> KubernetesEndpoint:
    """Our endpoint, installed by its chart and online, with a template whose blocks are pods."""
    builder = Builder(keeper)
    agent, worker = builder.agent(), builder.python_with_sdk()
    for image in (agent, worker):
        cluster.import_image(image.archive)
    workers = f"{name}-workers"
    provider = {"max_blocks": PODS, "init_cpu": 0.1, "max_cpu": 1, "max_mem": "256Mi"}
    template = f"engine: {json.dumps(engine(worker.name, workers, provider, job_status_kwargs={'max_idletime': 3}))}\n"
    endpoint = KubernetesEndpoint(cluster, interchange, client, agent, agent, name, template=template)
    return endpoint.start()


class Pods:
    """Tells, line by line, what becomes of the worker pods."""

    def __init__(self, endpoint: KubernetesEndpoint):
        self._started = time.monotonic()
        self._told: dict[str, str] = {}
        self._process = subprocess.Popen(
            [
                *(endpoint.cluster.kubectl_program, "--kubeconfig", endpoint.cluster.kubeconfig),
                *("get", "pods", "--namespace", endpoint.workers, "--watch", "--output-watch-events"),
                *("--output", 'jsonpath={.type}{" "}{.object.metadata.name}{" "}{.object.status.phase}{" "}'),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="pods", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        words: list[str] = []
        word = ""
        while letter := self._process.stdout.read(1):
            if letter not in " \n":
                word += letter
                continue
            if word:
                words.append(word)
                word = ""
            if len(words) == 3:
                self._tell(*words)
                words = []

    def _tell(self, change: str, name: str, phase: str) -> None:
        state = {"DELETED": "is gone", "ADDED": "comes"}.get(change, phase.lower())
        if state == "pending" or self._told.get(name) == state:
            return
        self._told[name] = state
        if phase == "Running" and change == "MODIFIED":
            state = "runs"
        print(f"\r    {time.monotonic() - self._started:5.1f} s  pod {name} {state}\x1b[K", flush=True)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


@contextlib.contextmanager
def pods_told(endpoint: KubernetesEndpoint) -> Iterator[None]:
    """Tells of the worker pods while something is computed, and until the last of them is gone."""
    pods = Pods(endpoint)
    try:
        yield
        endpoint.wait_for_pods(0, timeout=60)
    finally:
        pods.end()
