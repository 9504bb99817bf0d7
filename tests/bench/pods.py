"""An endpoint on a Kubernetes of one node, an SDK that uses it, and what is seen of its pods: for the benchmarks."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from harness import checkout
from harness.interchange import Interchange, client_settings
from harness.keeper import Keeper
from harness.kubernetes import addresses, cluster
from harness.kubernetes.cluster import Cluster
from harness.kubernetes.endpoint import KubernetesEndpoint, engine
from harness.kubernetes.images import Builder
from harness.rabbitmq import RabbitMQ

REQUESTS = {"cpu": "10m", "memory": "32Mi"}
LIMITS = {"cpu": "2", "memory": "256Mi"}
WORKER_SELECTOR = "app.kubernetes.io/name=waypost-worker"
BARE = "waypost.test/bench"
"""Label of what kubectl makes here."""


class PodWatch:
    """What the API server says of some pods, with the time at which it was heard; from now until the program's end."""

    def __init__(self, target: Cluster, namespace: str, selector: str):
        self._made: dict[str, float] = {}
        self._scheduled: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._ending: dict[str, float] = {}
        self._gone: dict[str, float] = {}
        self._changed = threading.Condition()
        certificates = target.certificates
        context = ssl.create_default_context(cafile=str(certificates.file("ca.crt")))
        context.load_cert_chain(certificates.file("admin.crt"), certificates.file("admin.key"))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        self._opener = opener
        server = f"https://{addresses.NODE}:{addresses.API_PORT}"
        label = selector.replace("=", "%3D")
        self._address = f"{server}/api/v1/namespaces/{namespace}/pods?watch=1&labelSelector={label}"
        answer = self._open()
        threading.Thread(target=self._read, args=[answer], daemon=True).start()

    def _open(self, version: str = ""):
        return self._opener.open(f"{self._address}&resourceVersion={version}", timeout=600)

    def _read(self, answer) -> None:
        version = ""
        while True:
            for line in answer:
                now, change = time.time(), json.loads(line)
                if change["type"] == "ERROR":
                    raise RuntimeError(f"the watch of pods has failed: {change['object']}")
                version = change["object"]["metadata"]["resourceVersion"]
                with self._changed:
                    self._note(now, change["type"], change["object"])
                    self._changed.notify_all()
            # The API server ends the watch of one that reads too slowly, as on a machine that is this busy.
            answer = self._open(version)

    def _note(self, now: float, kind: str, pod: dict) -> None:
        name = pod["metadata"]["name"]
        self._made.setdefault(name, now)
        if pod["spec"].get("nodeName"):
            self._scheduled.setdefault(name, now)
        status = pod.get("status", {})
        states = [each["state"] for each in status.get("containerStatuses", [])]
        if states and all("running" in state for state in states):
            self._started.setdefault(name, now)
        if "deletionTimestamp" in pod["metadata"] or any("terminated" in state for state in states):
            self._ending.setdefault(name, now)
        if kind == "DELETED":
            self._gone.setdefault(name, now)

    def wait(self, condition: Callable[[PodWatch], bool], what: str, timeout: float = 600) -> None:
        """Returns once it holds."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError(f"{what}: {len(self._started)} started, {len(self._gone)} gone after {timeout} s")

    def steps(self) -> dict[str, float]:
        """When the one pod reached each step."""
        ((name, made),) = self._made.items()
        return {"made": made, "scheduled": self._scheduled[name], "started": self._started[name]}

    @property
    def first_made(self) -> float:
        return min(self._made.values())

    @property
    def last_started(self) -> float:
        return max(self._started.values())

    @property
    def first_ending(self) -> float:
        return min(self._ending.values())

    @property
    def last_gone(self) -> float:
        return max(self._gone.values())

    def started(self) -> int:
        return len(self._started)

    def gone(self) -> int:
        return len(self._gone)


class Bench:
    """An endpoint on a cluster of its own, and an SDK that uses it."""

    def __init__(self, keeper: Keeper, marks: Path):
        self.marks = marks
        self.keeper = keeper
        builder = Builder(keeper)
        agent, self.image = builder.agent(), builder.worker()
        if os.environ.get(cluster.ATTACH):
            self.cluster = Cluster.attach(keeper)
        else:
            self.cluster = Cluster(keeper)
            # As the kubelet does by default: bare pods have no volumes to be looked at.
            self.cluster.daemons.volumes_looked_at_every = "1m0s"
            self.cluster.start(builder.pause().archive, patience=60)
        for image in (agent, self.image):
            self.cluster.import_image(image.archive)
        self.broker = RabbitMQ(keeper, address=addresses.HOST).start()
        interchange = Interchange(keeper, checkout.binary("interchange"), self.broker, address=addresses.HOST).start()
        client = interchange.create_client("bench")
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]
        folder = keeper.temporary_folder("sdk")
        os.environ.update(client_settings(interchange.port, client, folder, interchange.address))
        self.endpoint = KubernetesEndpoint(self.cluster, interchange, client, agent, self.image, "bench")

    def start(self) -> None:
        """Removes what a run that was killed has left on a cluster that stays up, and installs the endpoint."""
        forced = ["--force", "--grace-period=0"]
        self.cluster.kubectl("delete", "pods,secrets", "--selector", BARE, *forced, timeout=300)
        self.endpoint.remove_left()
        self.endpoint.start()

    def executor(self, max_idletime: float = 1, **provider: object):
        """An Executor of the SDK whose blocks are pods with one slot."""
        from globus_compute_sdk import Executor

        options = {
            "init_cpu": 0.01,
            "max_cpu": 2,
            "init_mem": REQUESTS["memory"],
            "max_mem": LIMITS["memory"],
            "volumes": [{"name": "marks", "hostPath": {"path": str(self.marks)}}],
            "volume_mounts": [{"name": "marks", "mountPath": "/marks"}],
            **provider,
        }
        made = engine(self.image.name, self.endpoint.workers, options, job_status_kwargs={"max_idletime": max_idletime})
        return Executor(
            endpoint_id=self.endpoint.id,
            user_endpoint_config={"engine": made},
            api_burst_limit=8,
            api_burst_window_s=1,
        )

    def watch(self) -> PodWatch:
        return PodWatch(self.cluster, self.endpoint.workers, WORKER_SELECTOR)

    def told(self, message: str, since: float) -> list[float]:
        """When the agent logged a message, from a moment on."""
        times = []
        for line in self.endpoint.logs().splitlines():
            entry = json.loads(line)
            at = datetime.fromisoformat(entry["timestamp"]).timestamp()
            if entry["message"] == message and at >= since:
                times.append(at)
        return times


@contextlib.contextmanager
def on_a_cluster(keeper: Keeper, marks: Path) -> Iterator[Bench]:
    """One that is started. However it ends, short of a SIGKILL, nothing of it stays on a cluster that does."""
    bench = Bench(keeper, marks)
    try:
        bench.start()
        yield bench
    finally:
        bench.cluster.run_kubectl("delete", "pods,secrets", "--selector", BARE, "--wait=false")
        bench.endpoint.delete(wait=False)


def say(what: str) -> None:
    """Says how far the benchmark is."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)
