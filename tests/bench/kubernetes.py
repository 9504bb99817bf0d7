#!/usr/bin/env python3
"""Measures our agent on a real Kubernetes of one node, and writes its section of docs/benchmarks.md.

    tests/bench/kubernetes.py [--rounds 10] [--pods 100]
    tests/bench/kubernetes.py --hollow 2000 [--nodes 8] [--tasks 50000]

The first task to an endpoint without pods, step by step; and many pods at once, beside as many bare pods of the same
image that kubectl makes in the same run. Or, with --hollow, thousands of pods on hollow nodes. Needs what `./test cluster`
needs, and builds it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import hollow
import sections
from figures import usage_of
from harness import checkout, debian, processes
from harness.functions import double, leave_mark_and_sleep
from harness.keeper import Keeper
from harness.kubernetes import cluster, images, programs
from pods import BARE, LIMITS, REQUESTS, Bench, PodWatch, on_a_cluster, say

SDK = checkout.SDK_VERSIONS[0]

PAGE = """\
## On Kubernetes

Made by `tests/bench/kubernetes.py` on {date}: {machine}. One node: etcd, the API server, the kubelet, RabbitMQ, the
interchange, the SDK, the agent and all pods share these cores. {sdk} submits. Images are on the node.

The first task to an endpoint that has no pod, and has had one before ({rounds} rounds; seconds since `submit`, median,
with the spread from lowest to highest):

{first}

{pods} pods at once, each with one slot. Beside them, made by one `kubectl create` each: *bare* pods of the same image with the
same requests that sleep, and *alike* ones, with the volumes, Secret, environment and security context of ours and a Python
that imports what a worker's does, and then sleeps. Ours also dial the agent, fork an executor and run a task, for which
the SDK, the interchange, the broker and the agent work on the same cores. Seconds; each the only run.

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
    parser.add_argument("--hollow", type=int, default=0, help="so many pods on hollow nodes, in place of all that")
    parser.add_argument("--nodes", type=int, default=8, help="hollow nodes (default: 8)")
    parser.add_argument("--tasks", type=int, default=50_000, help="tasks over the hollow pods' links (default: 50000)")
    parser.add_argument("--output", type=Path, default=checkout.ROOT / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    if importlib.util.find_spec("globus_compute_sdk") is None:
        with Keeper(checkout.STATE / "logs" / "bench-kubernetes") as keeper:
            debian.install([*cluster.PACKAGES, *images.PACKAGES])
            python = checkout.clients(SDK).make(keeper).python
            programs.build(keeper, [*programs.CLUSTER, programs.KUBEMARK])
        for command in (
            ["cargo", "build", "--release", "--locked", "--workspace", "--bins"],
            [*checkout.STATIC_WORKER, "--target", checkout.host_target()],
        ):
            subprocess.run(command, cwd=checkout.ROOT, check=True)
        os.execv(python, [str(python), "-B", *sys.argv])
    processes.end_by_signals()
    status = 1
    try:
        with Keeper(checkout.STATE / "logs" / "bench-kubernetes") as keeper:
            if arguments.hollow:
                section, text = "hollow", hollow.measure(keeper, arguments.hollow, arguments.nodes, arguments.tasks)
            else:
                section, text = "kubernetes", measure(keeper, arguments).page(arguments)
        sections.put(arguments.output, section, text)
        print(f"{text}\nwritten: {arguments.output}")
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The SDK's threads would try to reach the broker again, which ended with the keeper.
        os._exit(status)


@dataclass
class Measured:
    """Everything that one run saw."""

    first: list[dict[str, float]] = field(default_factory=list)
    """By step, the seconds since `submit`."""
    ours: dict[str, float] = field(default_factory=dict)
    bare: dict[str, float] = field(default_factory=dict)
    alike: dict[str, float] = field(default_factory=dict)
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
        many = ["| | Waypost | bare | ratio | alike | ratio |", "|---|---|---|---|---|---|"]
        for what, name in rows:
            cells = [f"{self.ours[name]:.1f}"]
            for other in (self.bare.get(name), self.alike.get(name)):
                cells += ["", ""] if other is None else [f"{other:.1f}", f"{self.ours[name] / other:.2f}"]
            many.append(f"| {what} | {' | '.join(cells)} |")
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


def measure(keeper: Keeper, arguments: argparse.Namespace) -> Measured:
    """Every figure."""
    measured = Measured()
    with tempfile.TemporaryDirectory(prefix="waypost-marks-") as folder:
        os.chmod(folder, 0o777)
        say("starting the cluster and the endpoint")
        with on_a_cluster(keeper, Path(folder)) as bench:
            with bench.executor() as executor:
                # Starts the user endpoint, which is made once.
                executor.submit(double, 1).result(timeout=120)
                bench.endpoint.wait_for_pods(0)
                for number in range(1, arguments.rounds + 1):
                    say(f"first task, round {number} of {arguments.rounds}")
                    measured.first.append(first_task(bench, executor))
            say(f"{arguments.pods} bare pods")
            measured.bare = made_by_kubectl(bench, "bare", bare_pod(bench), arguments.pods)
            say(f"{arguments.pods} blocks")
            measured.ours, measured.agent_mib, spec = blocks(bench, arguments.pods)
            say(f"{arguments.pods} pods alike")
            measured.alike = made_by_kubectl(bench, "alike", spec, arguments.pods)
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


def blocks(bench: Bench, count: int) -> tuple[dict[str, float], float, dict]:
    """As many tasks as pods, which wait until all are there."""
    gate = bench.marks / "gate"
    os.mkfifo(gate)
    os.chmod(gate, 0o666)
    watch = bench.watch()
    since = time.time()
    with bench.executor(max_blocks=count, max_mem=LIMITS["memory"]) as executor:
        tasks = [
            executor.submit(leave_mark_and_sleep, "/marks", f"task-{number}", "/marks/gate") for number in range(count)
        ]
        watch.wait(lambda seen: seen.started() >= count, f"{count} pods to run")
        bench.cluster.wait(
            lambda: len(list(bench.marks.glob("task-*"))) >= count, f"{count} tasks to run", timeout=600, interval=0.5
        )
        ready = max(bench.told("worker joined", since))
        memory = usage_of([bench.endpoint.agent_process()]).memory_mib
        spec = alike(bench.endpoint.pods()[0])
        os.close(os.open(gate, os.O_WRONLY))
        for task in tasks:
            task.result(timeout=300)
        watch.wait(lambda seen: seen.gone() >= count, f"the end of {count} pods")
    seconds = {
        "running": watch.last_started - watch.first_made,
        "ready": ready - watch.first_made,
        "gone": watch.last_gone - watch.first_ending,
    }
    return seconds, memory, spec


# PID 1 has no default handlers: without one its end would take the whole grace.
SLEEP = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()\n"
SETTLING = 10
"""Seconds in which the last ones that run come to their handler: ours are told to end when each has run a task."""


def bare_pod(bench: Bench) -> dict:
    """What a pod is that only sleeps."""
    container = {
        "name": "worker",
        "image": bench.image.name,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", SLEEP],
        "resources": {"requests": REQUESTS, "limits": LIMITS},
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
    }


def alike(pod: dict) -> dict:
    """What a pod is that has all that this one of ours has, imports what its worker's Python does, and sleeps."""
    spec = {name: value for name, value in pod["spec"].items() if name not in ("nodeName", "serviceAccount")}
    loader = (checkout.ROOT / "worker-image" / "python" / "waypost_executor" / "package.py").read_text()
    imports = "import dill, inspect, platform\nfrom globus_compute_sdk.serialize import ComputeSerializer\n"
    (worker,) = [container for container in spec["containers"] if container["name"] == "worker"]
    worker["command"] = ["python3", "-c", f"{loader}\ninstall()\n{imports}{SLEEP}"]
    del worker["args"]
    return spec


def made_by_kubectl(bench: Bench, name: str, spec: dict, count: int) -> dict[str, float]:
    """How long so many pods take that kubectl makes, each with a Secret of its own if it mounts one, and deletes."""
    objects = []
    for number in range(count):
        metadata = {"name": f"{name}-{number}", "namespace": "default", "labels": {BARE: name}}
        own = json.loads(json.dumps(spec))
        for volume in own.get("volumes", []):
            if "secret" in volume:
                volume["secret"]["secretName"] = metadata["name"]
                data = {"token": "t" * 64, "ca.crt": "c" * 700}
                secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "immutable": True}
                objects.append({**secret, "stringData": data})
        objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": own})
    # Secrets first, as ours are there before their pods.
    objects.sort(key=lambda each: each["kind"] == "Pod")
    watch = PodWatch(bench.cluster, "default", f"{BARE}={name}")
    made = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    bench.cluster.kubectl("create", "--filename", "-", input=made, timeout=300)
    watch.wait(lambda seen: seen.started() >= count, f"{count} pods to run")
    time.sleep(SETTLING)
    bench.cluster.kubectl("delete", "pods,secrets", "--selector", f"{BARE}={name}", "--wait=false", timeout=300)
    watch.wait(lambda seen: seen.gone() >= count, f"the end of {count} pods")
    return {
        "running": watch.last_started - watch.first_made,
        "gone": watch.last_gone - watch.first_ending,
    }


if __name__ == "__main__":
    sys.exit(main())
