"""Hollow nodes, and workers for their pods: thousands of blocks on one machine.

A hollow node is kubemark's: a kubelet whose container runtime says of every container that it runs, and runs none. What
its worker would do on its link is done by `waypost-bench links`, with the token that the block's Secret has.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from harness import checkout, ports, processes
from harness.keeper import Keeper, Process, ProcessError
from harness.kubernetes import addresses, programs
from harness.kubernetes.cluster import Cluster

MARK = "waypost.test/hollow"
PLACEMENT = {
    "node_selector": {MARK: "yes"},
    "tolerations": [{"key": MARK, "operator": "Exists"}],
    # Each node calls itself small.
    "init_cpu": 0.001,
    "init_mem": "1Mi",
    # A hollow container does not end when its worker says goodbye: its pod is deleted after this time.
    "termination_grace": 2,
}
"""Options of a provider whose pods go there. Others do not."""

_ALONE = (
    'mount --bind "$0" /mnt && mount -t tmpfs hollow /tmp && mkdir -p "$0" && mount --move /mnt "$0" '
    '&& PATH=/nonexistent exec "$@"'
)
"""Its folders and its socket are in /tmp, whatever TMPDIR says, and would stay when it is killed; what it needs may be there
too, and stays to be seen. It finds no program to run, for it would lay its chains (KUBE-FIREWALL and others) into this
machine's own iptables, and leave them there."""


class HollowNodes:
    """So many nodes, until `end`."""

    def __init__(self, keeper: Keeper, cluster: Cluster, count: int, pods: int = 500):
        """`pods` is how many a node takes."""
        self.keeper = keeper
        self.cluster = cluster
        self.pods = pods
        self.names = [f"hollow-{number}" for number in range(1, count + 1)]
        self.processes: list[Process] = []

    def start(self) -> HollowNodes:
        """Returns once all are ready."""
        programs.build(self.keeper, [programs.KUBEMARK])
        for name in self.names:
            kubeconfig = self.cluster.certificates.kubeconfig(name, f"/CN=system:node:{name}/O=system:nodes")
            kubelet = [
                programs.path(programs.KUBEMARK),
                "--morph=kubelet",
                f"--name={name}",
                f"--kubeconfig={kubeconfig}",
                f"--kubelet-port={ports.free_port()}",
                "--kubelet-read-only-port=0",
                f"--node-labels={MARK}=yes",
                f"--register-with-taints={MARK}=yes:NoSchedule",
                f"--max-pods={self.pods}",
                "--use-host-image-service=false",
                "--kube-api-qps=100",
                "--kube-api-burst=200",
            ]
            self.processes.append(
                self.keeper.start(
                    name, ["unshare", "--mount", "sh", "-c", _ALONE, addresses.cache(), *kubelet], grace=1
                )
            )
        for name, process in zip(self.names, self.processes, strict=True):
            process.wait_until(lambda name=name: self._ready(name), "ready", timeout=120)
        return self

    def _ready(self, name: str) -> bool:
        where = '{.status.conditions[?(@.type=="Ready")].status}'
        done = self.cluster.run_kubectl("get", "node", name, "--output", f"jsonpath={where}")
        return done.stdout == "True"

    def memory_mib(self) -> float:
        """Of all of them together: the proportional set size."""
        return sum(processes.proportional_memory(process.pid) for process in self.processes) / (1 << 20)

    def end(self) -> None:
        """Ends them, and removes them from the cluster."""
        for process in self.processes:
            if process.running:
                process.stop(grace=1)
        self.cluster.run_kubectl("delete", "node", *self.names, "--ignore-not-found", "--wait=false")


class HollowWorkers:
    """`waypost-bench links`: the links of every pod of a user endpoint that runs."""

    def __init__(self, keeper: Keeper, kubeconfig: Path, namespace: str, connect: str, user_endpoint: str):
        self.keeper = keeper
        self.kubeconfig = kubeconfig
        self.arguments = [f"--namespace={namespace}", f"--connect={connect}", f"--user-endpoint={user_endpoint}"]
        self.process: Process | None = None
        self._before = 0

    def start(self, hold: int = 0, data: str = "") -> HollowWorkers:
        """Tasks are answered with `data` once there are `hold` links."""
        command = [checkout.binary("waypost-bench"), "links", *self.arguments, f"--hold={hold}", f"--data={data}"]
        environment = {"KUBECONFIG": str(self.kubeconfig), "PATH": "/usr/bin:/bin"}
        log = self.keeper.logs / "hollow-workers.log"
        self._before = log.stat().st_size if log.exists() else 0
        self.process = self.keeper.start("hollow-workers", command, environment=environment)
        return self

    def figures(self) -> dict[str, int]:
        """What it said last: `links` now, `dialled` in all, `tasks` answered, `failures`."""
        text = self.process.log.read_bytes()[self._before :].decode(errors="replace")
        said = [line for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
        return json.loads(said[-1]) if said else {"links": 0, "dialled": 0, "tasks": 0, "failures": 0}

    def wait_for_links(self, count: int, timeout: float) -> None:
        """Returns once so many are up. ProcessError if they are not in time."""
        end = time.monotonic() + timeout
        while self.figures()["links"] < count:
            if time.monotonic() > end or not self.process.running:
                raise ProcessError(
                    f"{count} links were waited for, and there are {self.figures()}\n{self.process.tail()}"
                )
            time.sleep(0.2)

    def end(self) -> None:
        if self.process is not None and self.process.running:
            self.process.stop(grace=2)
