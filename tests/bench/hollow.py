"""Thousands of pods on hollow nodes: launched, observed and reaped by one agent, with a link to each of them."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections import defaultdict
from pathlib import Path

import sections
from figures import usage_of
from harness import checkout
from harness.functions import double
from harness.keeper import Keeper
from harness.kubernetes.hollow import PLACEMENT, HollowNodes, HollowWorkers
from pods import Bench, on_a_cluster, say

IDLE_TIME = 60
"""Seconds for which a pod may be without a task: longer than from one wave of tasks to the next."""

PAGE = """\
## Thousands of pods

Made by `tests/bench/kubernetes.py --hollow {pods}` on {date}: {machine}. {nodes} hollow nodes (kubemark) say of each
container that it runs, and run none; what its worker would do on its link is done by a load tool, with the token in the
block's own Secret, and tasks that do nothing. Such a container does not end by itself either: the agent deletes its pod 2 s
after the worker's goodbye. The agent is a pod as any other. The API server, etcd, the hollow nodes
({hollow:.0f} MiB), RabbitMQ, the load tool and the agent share these cores. {first} tasks ask for as many pods and wait until all
are linked; then {tasks} tasks go over the links. The only run.

| | |
|---|---|
| from the first pod made to the last one running (s) | {running:.1f} |
| from the first pod made to the last link (s) | {linked:.1f} |
| tasks a second over {pods} links | {speed:,.0f} |
| from the first pod told to end to the last one gone (s) | {gone:.1f} |
| links that were dialled, and that failed | {dialled}, {failures} |
| tasks that were answered: {first} and {tasks}, each once | {answered} |
| pods, and Secrets of blocks, that are left | {left_pods}, {left_secrets} |

| the agent's memory (MiB, PSS) | |
|---|---|
| with no pod | {idle:.0f} |
| with {pods} pods and links | {with_links:.0f} |
| after those tasks | {loaded:.0f} |
| when all pods are gone | {after:.0f} |

| the agent's requests to the API server | | a pod |
|---|---|---|
{requests}
"""


def measure(keeper: Keeper, pods: int, nodes: int, tasks: int) -> str:
    """The section of the page."""
    with tempfile.TemporaryDirectory(prefix="waypost-marks-") as folder:
        say("starting the cluster and the endpoint")
        with on_a_cluster(keeper, Path(folder)) as bench:
            return _measure(keeper, bench, pods, nodes, tasks)


def _measure(keeper: Keeper, bench: Bench, pods: int, nodes: int, tasks: int) -> str:
    say(f"starting {nodes} hollow nodes")
    hollow = HollowNodes(keeper, bench.cluster, nodes, pods=-(-pods // nodes) + 10).start()
    try:
        return _over(hollow, bench, pods, nodes, tasks)
    finally:
        hollow.end()


def _over(hollow: HollowNodes, bench: Bench, pods: int, nodes: int, tasks: int) -> str:
    from globus_compute_sdk.serialize import ComputeSerializer

    agent = bench.endpoint.agent_process()
    memory = lambda: usage_of([agent]).memory_mib  # noqa: E731
    seen = {"idle": memory()}
    watch = bench.watch()
    with bench.executor(
        max_idletime=IDLE_TIME, max_blocks=pods, max_mem="64Mi", volumes=[], volume_mounts=[], **PLACEMENT
    ) as executor:
        say(f"asking for {pods} pods")
        first = executor.submit(double, 1)
        watch.wait(lambda pods: pods.started() > 0, "the first pod")
        user_endpoint = bench.endpoint.pods()[0]["metadata"]["labels"]["waypost.dev/user-endpoint"]
        load = Load(bench, user_endpoint)
        waiting = load.start(pods - 1, pods - 1)
        workers = hollow_workers(bench, user_endpoint).start(hold=pods, data=ComputeSerializer().serialize(None))
        watch.wait(lambda watch: watch.started() >= pods, f"{pods} pods to run", timeout=1800)
        say(f"{pods} pods run; links: {workers.figures()}")
        workers.wait_for_links(pods, timeout=900)
        linked = time.time() - watch.first_made
        seen["with_links"] = memory()
        first.result(timeout=600)
        load.finish(waiting)
        say(f"{pods} links; {tasks} tasks")
        figures = load.finish(load.start(tasks, min(2 * pods, 4000)))
        seen["loaded"] = memory()
        hollow_mib = hollow.memory_mib()
        say(f"{figures['tasks_per_second']:.0f} tasks a second; waiting for the pods' end")
        watch.wait(lambda watch: watch.gone() >= pods, f"the end of {pods} pods", timeout=1800)
        say("all pods are gone")
        # The last answers of the API server are on their way.
        time.sleep(2)
        said = workers.figures()
        workers.end()
    seen["after"] = memory()
    return PAGE.format(
        pods=pods,
        date=sections.today(),
        machine=sections.machine(),
        nodes=nodes,
        hollow=hollow_mib,
        first=pods,
        tasks=tasks,
        running=watch.last_started - watch.first_made,
        linked=linked,
        speed=figures["tasks_per_second"],
        gone=watch.last_gone - watch.first_ending,
        dialled=said["dialled"],
        failures=said["failures"],
        answered=said["tasks"],
        left_pods=len(bench.endpoint.pods()),
        left_secrets=len(bench.endpoint.secrets()),
        requests=requests(bench, pods),
        **seen,
    )


def hollow_workers(bench: Bench, user_endpoint: str) -> HollowWorkers:
    """Those of the bench's endpoint."""
    address = bench.endpoint.link_address()
    return HollowWorkers(bench.keeper, bench.cluster.kubeconfig, bench.endpoint.workers, address, user_endpoint)


class Load:
    """Tasks straight to a user endpoint's queue, whose results go to the generator alone."""

    def __init__(self, bench: Bench, user_endpoint: str):
        self.bench = bench
        self.user_endpoint = user_endpoint
        self.id = str(uuid.uuid4())
        folder = bench.keeper.temporary_folder("bench")
        self.body = folder / "task"
        make = Path(__file__).with_name("make_task.py")
        python = checkout.clients(checkout.SDK_VERSIONS[0]).python
        self.body.write_bytes(subprocess.run([python, make, self.id], capture_output=True, check=True).stdout)

    def start(self, count: int, in_flight: int) -> subprocess.Popen:
        """Begins with so many tasks."""
        command = [
            *(checkout.binary("waypost-bench"), "load", "--patience", "900"),
            *("--task-queue", f"{self.user_endpoint}.tasks", "--result-key", f"{self.user_endpoint}.results"),
            *("--body", self.body, "--body-task-id", self.id),
            *("--count", str(count), "--in-flight", str(in_flight)),
        ]
        environment = {"WAYPOST_BENCH_AMQP": self.bench.broker.url()}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def finish(self, running: subprocess.Popen) -> dict:
        """Its figures, once every result has come."""
        said, _ = running.communicate(timeout=1800)
        if running.returncode != 0:
            raise RuntimeError("the load failed; what it said stands above")
        return json.loads(said)


REQUESTED = re.compile(r"^waypost_kubernetes_requests_total\{(?P<labels>[^}]*)\} (?P<count>\d+)", re.MULTILINE)


def requests(bench: Bench, pods: int) -> str:
    """Rows of a table: what the agent asked the API server, by verb and resource, failed ones beside them."""
    address = bench.cluster.get("pod", bench.endpoint.agent(), bench.endpoint.namespace)["status"]["podIP"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    text = opener.open(f"http://{address}:9464/metrics", timeout=30).read().decode()
    asked: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for found in REQUESTED.finditer(text):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', found["labels"]))
        if count := int(found["count"]):
            asked[f"{labels['verb']} {labels['resource']}"][labels["outcome"]] += count
    rows = []
    for what, outcomes in sorted(asked.items(), key=lambda each: -sum(each[1].values())):
        total = sum(outcomes.values())
        others = ", ".join(f"{count:,} {name}" for name, count in outcomes.items() if name != "success")
        rows.append(f"| {what} | {total:,}{f' ({others})' if others else ''} | {total / pods:.2f} |")
    return "\n".join(rows)
