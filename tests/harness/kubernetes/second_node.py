"""A second real node beside the cluster's first one: a kubelet and a containerd of its own, on the same machine.

It has folders, sockets, ports and control groups of its own, and shares the cluster's network: its pods are on the first
node's bridge. So it can be lost as a whole, while the rest of the cluster goes on.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness import processes
from harness.keeper import Keeper, Process
from harness.kubernetes import addresses, ground
from harness.kubernetes.cluster import Cluster, environment_of_daemons
from harness.kubernetes.daemons import Daemons, Node

TAINT = "waypost.test/second"
NODE = Node(name="node-2", port=10260, health_port=10258, control_group="node-2", taint=TAINT)


def tolerations(seconds_lost: int) -> list[dict]:
    """Of a pod that may be on this node, and is given up once the node was lost for so long."""
    lost = [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": seconds_lost,
        }
        for state in ("unreachable", "not-ready")
    ]
    return [{"key": TAINT, "operator": "Exists"}, *lost]


class SecondNode:
    """Up from `start` until `lose` or `end`."""

    def __init__(self, keeper: Keeper, cluster: Cluster):
        self.keeper = keeper
        self.cluster = cluster
        self.name = NODE.name
        # Below the cluster's own folder, which is cleared with all that is mounted there when the cluster ends.
        folder = cluster.folder / NODE.name
        self.daemons = Daemons(folder, cluster.certificates, NODE, cluster.daemons.pod_addresses)
        self.processes: dict[str, Process] = {}

    def start(self, *images: Path) -> SecondNode:
        """Returns once it is ready, and knows the images in these archives."""
        self.daemons.folder.mkdir(mode=0o711, exist_ok=True)
        subject = f"/CN=system:node:{self.name}/O=system:nodes"
        self.cluster.certificates.kubeconfig(self.daemons.kubelet_credentials, subject)
        for group in self._control_groups():
            ground.make_control_group(group)
        self._run("containerd", self.daemons.containerd())
        answers = lambda: self.cluster.ctr("version", daemons=self.daemons).returncode == 0  # noqa: E731
        self.processes["containerd"].wait_until(answers, "followed by an answer")
        for image in images:
            self.cluster.import_image(image, self.daemons)
        self._run("kubelet", self.daemons.kubelet())
        self.processes["kubelet"].wait_until(lambda: self.cluster.is_ready(self.name), "followed by a ready node", 120)
        return self

    def _run(self, name: str, command: list[str | Path]) -> None:
        self.processes[name] = self.keeper.start(
            f"{name}-{self.name}",
            self.cluster.inside(*command),
            environment=environment_of_daemons(self.cluster.folder),
        )

    def be_short_of_memory(self) -> None:
        """From now on the kubelet finds too little memory free, however much that is, and does what it does then."""
        self.processes["kubelet"].kill(tree=False)
        # More than any machine has; a share of 100 % would switch it off.
        self.daemons.memory_wanted_free = "1Pi"
        self._run("kubelet", self.daemons.kubelet())

    def _control_groups(self) -> list[Path]:
        return [group / NODE.control_group for group in ground.control_groups()]

    def _in_containers(self) -> set[int]:
        found: set[int] = set()
        for group in self._control_groups():
            for member in group.rglob("cgroup.procs"):
                try:
                    found.update(int(line) for line in member.read_text().split())
                except OSError:
                    continue
        return found

    def lose(self) -> None:
        """As when its power fails: first nothing more comes from its pods, not even the end of a connection, and then
        everything on it is killed at once."""
        contained = self._in_containers()
        for network in {os.readlink(f"/proc/{pid}/ns/net"): pid for pid in contained}.values():
            cut = ["nsenter", f"--target={network}", "--net", "ip", "link", "set", "eth0", "down"]
            subprocess.run(cut, check=True, capture_output=True)
        self._kill(contained)

    def _kill(self, contained: set[int]) -> None:
        # No daemon is left that could say how the containers ended.
        for process in self.processes.values():
            if process.running:
                process.kill(tree=False)
        socket = str(self.daemons.containerd_socket)
        shims = [
            seen.pid
            for seen in processes.with_environment(ground.CLUSTER, str(addresses.cache()))
            if "containerd-shim" in seen.command and socket in seen.command
        ]
        for pid in [*shims, *contained]:
            processes.kill(pid)

    def end(self) -> None:
        """Ends what is left of it, and removes it from the cluster."""
        self._kill(self._in_containers())
        self.cluster.run_kubectl("delete", "node", self.name, "--ignore-not-found", "--wait=false")
