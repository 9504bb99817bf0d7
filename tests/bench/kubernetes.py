#!/usr/bin/env python3
"""Measures our agent on a real Kubernetes of one node, and writes its section of docs/benchmarks.md.

    tests/bench/kubernetes.py [--rounds 10] [--pods 100]

The first task to an endpoint without pods, step by step; and many pods at once, beside as many bare pods of the same
image that kubectl makes in the same run. Needs what `./test cluster` needs, and builds it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import sections
from figures import usage_of
from harness import checkout, debian
from harness.functions import double, leave_mark_and_wait
from harness.interchange import Interchange, client_settings
from harness.keeper import Keeper
from harness.kubernetes import addresses, cluster, images, programs
from harness.kubernetes.cluster import Cluster
from harness.kubernetes.endpoint import KubernetesEndpoint, engine
from harness.kubernetes.images import Builder, Image
from harness.rabbitmq import RabbitMQ

SDK = checkout.SDK_VERSIONS[0]
REQUESTS = {"cpu": "10m", "memory": "32Mi"}
LIMITS = {"cpu": "2", "memory": "256Mi"}
WORKER_SELECTOR = "app.kubernetes.io/name=waypost-worker"
BARE_SELECTOR = "waypost.test/bare=yes"

PAGE = """\
## On Kubernetes

Made by `tests/bench/kubernetes.py` on {date}: {machine}. One node: etcd, the API server, the kubelet, RabbitMQ, the
interchange, the SDK, the agent and all pods share these cores. {sdk} submits. Images are on the node.

The first task to an endpoint that has no pod, and has had one before ({rounds} rounds; seconds since `submit`, median,
with the spread from lowest to highest):

{first}

{pods} pods at once, each with one slot; the bare ones are of the same image with the same requests, sleep, and are made
by one `kubectl create`. Ours have a Secret each, and start a Python that imports the SDK while the others still come.
Seconds; each the only run.

{many}

With {pods} workers connected the agent's pod has {agent:.0f} MiB (PSS).
"""

STEPS = [
    ("asked", "the agent asks for a block"),
    ("made", "the API server has its pod"),
    ("scheduled", "it has its node"),
    ("started", "its worker's container runs"),
    ("dialled", "the worker has said hello"),
    ("result", "the SDK has the result"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of the first task (default: 10)")
    parser.add_argument("--pods", type=int, default=100, help="pods at once (default: 100, the node takes 110)")
    parser.add_argument("--output", type=Path, default=checkout.ROOT / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    if importlib.util.find_spec("globus_compute_sdk") is None:
        with Keeper(checkout.STATE / "logs" / "bench-kubernetes") as keeper:
            debian.install([*cluster.PACKAGES, *images.PACKAGES])
            python = checkout.clients(SDK).make(keeper).python
            programs.build(keeper, programs.CLUSTER)
        for command in (
            ["cargo", "build", "--release", "--locked", "--workspace", "--bins"],
            [*checkout.STATIC_WORKER, "--target", checkout.host_target()],
        ):
            subprocess.run(command, cwd=checkout.ROOT, check=True)
        os.execv(python, [str(python), "-B", *sys.argv])
    with Keeper(checkout.STATE / "logs" / "bench-kubernetes") as keeper:
        measured = measure(keeper, arguments)
    text = measured.page(arguments)
    sections.put(arguments.output, "kubernetes", text)
    print(f"{text}\nwritten: {arguments.output}", flush=True)
    # The SDK's threads would try to reach the broker again, which ended with the keeper.
    os._exit(0)


@dataclass
class Measured:
    """Everything that one run saw."""

    first: list[dict[str, float]] = field(default_factory=list)
    """By step, the seconds since `submit`."""
    ours: dict[str, float] = field(default_factory=dict)
    bare: dict[str, float] = field(default_factory=dict)
    agent_mib: float = 0.0

    def page(self, arguments: argparse.Namespace) -> str:
        lines = ["| step | s |", "|---|---|"]
        for step, what in STEPS:
            seconds = [each[step] for each in self.first]
            lines.append(f"| {what} | {statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) |")
        rows = [
            ("from the first pod made to the last one running", "running"),
            ("from the first pod made to the last worker's hello", "ready"),
            ("from the first pod told to end to the last one gone", "gone"),
        ]
        many = ["| | Waypost | kubectl | ratio |", "|---|---|---|---|"]
        for what, name in rows:
            other = self.bare.get(name)
            bare = "" if other is None else f"{other:.1f}"
            ratio = "" if other is None else f"{self.ours[name] / other:.2f}"
            many.append(f"| {what} | {self.ours[name]:.1f} | {bare} | {ratio} |")
        return PAGE.format(
            date=sections.today(),
            machine=sections.machine(),
            sdk=f"globus-compute-sdk {SDK}",
            rounds=arguments.rounds,
            pods=arguments.pods,
            first="\n".join(lines),
            many="\n".join(many),
            agent=self.agent_mib,
        )


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
        server = f"https://{addresses.NODE}:{addresses.API_PORT}"
        path = f"/api/v1/namespaces/{namespace}/pods?watch=1&labelSelector={selector.replace('=', '%3D')}"
        self._answer = opener.open(server + path, timeout=600)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._answer:
            now, change = time.time(), json.loads(line)
            with self._changed:
                self._note(now, change["type"], change["object"])
                self._changed.notify_all()

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
        builder = Builder(keeper)
        agent, self.image = builder.agent(), builder.worker()
        if os.environ.get(cluster.ATTACH):
            self.cluster = Cluster.attach(keeper)
        else:
            self.cluster = Cluster(keeper).start(builder.pause().archive, patience=60)
        for image in (agent, self.image):
            self.cluster.import_image(image.archive)
        broker = RabbitMQ(keeper, address=addresses.HOST).start()
        interchange = Interchange(keeper, checkout.binary("interchange"), broker, address=addresses.HOST).start()
        client = interchange.create_client("bench")
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]
        folder = keeper.temporary_folder("sdk")
        os.environ.update(client_settings(interchange.port, client, folder, interchange.address))
        self.endpoint = KubernetesEndpoint(self.cluster, interchange, client, agent, self.image, "bench").start()

    def executor(self, **provider: object):
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
        made = engine(self.image.name, self.endpoint.workers, options, job_status_kwargs={"max_idletime": 1})
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


def measure(keeper: Keeper, arguments: argparse.Namespace) -> Measured:
    """Every figure."""
    measured = Measured()
    with tempfile.TemporaryDirectory(prefix="waypost-marks-") as folder:
        os.chmod(folder, 0o777)
        say("starting the cluster and the endpoint")
        bench = Bench(keeper, Path(folder))
        with bench.executor() as executor:
            # Starts the user endpoint, which is made once.
            executor.submit(double, 1).result(timeout=120)
            bench.endpoint.wait_for_pods(0)
            for number in range(1, arguments.rounds + 1):
                say(f"first task, round {number} of {arguments.rounds}")
                measured.first.append(first_task(bench, executor))
        say(f"{arguments.pods} bare pods")
        measured.bare = bare_pods(bench.cluster, bench.image, arguments.pods)
        say(f"{arguments.pods} blocks")
        measured.ours, measured.agent_mib = blocks(bench, arguments.pods)
    return measured


def first_task(bench: Bench, executor) -> dict[str, float]:
    """The steps of one task that finds no pod."""
    watch = bench.watch()
    since = time.time()
    if executor.submit(double, 21).result(timeout=120) != 42:
        raise RuntimeError("a wrong result")
    times = {"result": time.time(), **watch.steps()}
    times["asked"] = bench.told("block is being started", since)[0]
    times["dialled"] = bench.told("worker joined", since)[0]
    watch.wait(lambda seen: seen.gone() == 1, "the pod's end")
    return {step: at - since for step, at in times.items()}


def blocks(bench: Bench, count: int) -> tuple[dict[str, float], float]:
    """As many tasks as pods, which wait until all are there."""
    gate = bench.marks / "gate"
    watch = bench.watch()
    since = time.time()
    with bench.executor(max_blocks=count, max_mem=LIMITS["memory"]) as executor:
        tasks = [
            executor.submit(leave_mark_and_wait, "/marks", f"task-{number}", "/marks/gate", 900)
            for number in range(count)
        ]
        watch.wait(lambda seen: seen.started() >= count, f"{count} pods to run")
        bench.cluster.wait(
            lambda: len(list(bench.marks.iterdir())) >= count, f"{count} tasks to run", timeout=600, interval=0.5
        )
        ready = max(bench.told("worker joined", since))
        memory = usage_of([bench.endpoint.agent_process()]).memory_mib
        gate.touch()
        for task in tasks:
            task.result(timeout=300)
        watch.wait(lambda seen: seen.gone() >= count, f"the end of {count} pods")
    seconds = {
        "running": watch.last_started - watch.first_made,
        "ready": ready - watch.first_made,
        "gone": watch.last_gone - watch.first_ending,
    }
    return seconds, memory


def bare_pods(target: Cluster, image: Image, count: int) -> dict[str, float]:
    """The same number of pods that only sleep, made and deleted by kubectl."""
    # PID 1 has no default handlers: without one its end would take the whole grace.
    sleep = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"
    container = {
        "name": "sleeper",
        "image": image.name,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", sleep],
        "resources": {"requests": REQUESTS, "limits": LIMITS},
    }
    key, _, value = BARE_SELECTOR.partition("=")
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"bare-{number}", "namespace": "default", "labels": {key: value}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "containers": [container],
            },
        }
        for number in range(count)
    ]
    watch = PodWatch(target, "default", BARE_SELECTOR)
    target.kubectl(
        "create", "--filename", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}), timeout=300
    )
    watch.wait(lambda seen: seen.started() >= count, f"{count} bare pods to run")
    target.kubectl("delete", "pods", "--selector", BARE_SELECTOR, "--wait=false", timeout=300)
    watch.wait(lambda seen: seen.gone() >= count, f"the end of {count} bare pods")
    return {
        "running": watch.last_started - watch.first_made,
        "gone": watch.last_gone - watch.first_ending,
    }


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
