"""A Kubernetes cluster with one real node, on this machine, that ends with its keeper."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from harness.keeper import Keeper, Process, ProcessError
from harness.kubernetes import addresses, ground, programs
from harness.kubernetes.certificates import Certificates
from harness.kubernetes.daemons import Daemons

PACKAGES = ["runc", "iptables", "nftables", "conntrack", "iproute2", "util-linux", "openssl"]
"""What Debian brings. The rest is built from Go modules."""

ATTACH = "WAYPOST_TEST_CLUSTER"
"""Environment variable that is set where a cluster is up already, which other tests may be using as well."""

_GRACE = {"kubelet": 2.0, "containerd": 5.0}


class KubectlError(Exception):
    """kubectl ended with an error; the text is what it said."""


def refuse_unless_possible() -> None:
    """PermissionError or FileNotFoundError says why a cluster can not run on this machine."""
    if os.geteuid() != 0:
        raise PermissionError("a Kubernetes node needs root: its pods are made of control groups, mounts and networks")
    if not os.path.ismount("/sys/fs/cgroup") or not ground.control_groups():
        raise FileNotFoundError("a Kubernetes node needs control groups, and none are mounted at /sys/fs/cgroup")
    for group in ground.control_groups():
        if not os.access(group.parent, os.W_OK):
            raise PermissionError(f"a Kubernetes node needs control groups, and {group.parent} can not be written to")


def environment_of_daemons(folder: Path) -> dict[str, str]:
    """What every program of a cluster has, and with it the shims that it leaves."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        ground.CLUSTER: str(addresses.cache()),
    }


class Cluster:
    """etcd, the API server, its controllers and scheduler, and a node with containerd, kubelet and kube-proxy.

    They run in a network of their own (see `ground`), in which `addresses.HOST` is this machine. Images must be
    imported: there is no registry, and nothing outside this machine can be reached.
    """

    def __init__(self, keeper: Keeper):
        self.keeper = keeper
        self.folder = addresses.cache() / "run"
        self.certificates = Certificates(self.folder / "certificates")
        self.daemons = Daemons(self.folder, self.certificates)
        self.processes: dict[str, Process] = {}
        self._ground: Process | None = None
        self._ground_pid = self.folder / "ground.pid"

    @property
    def kubeconfig(self) -> Path:
        """For kubectl and every other client, with all rights."""
        return self.certificates.file("admin.kubeconfig")

    def start(self, pause: Path, patience: float = 30) -> Cluster:
        """Brings it up: about ten seconds to a node that is ready. `pause` is the archive of `daemons.PAUSE`.
        Waits `patience` seconds for another cluster's end."""
        refuse_unless_possible()
        self._lay_ground(patience)
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._ground_pid.write_text(str(self._ground.pid))
        self.certificates.make()
        self.run_daemon("containerd")
        self.run_daemon("etcd")
        self.wait_for_etcd()
        self.run_daemon("kube-apiserver")
        self.wait_for_containerd()
        self.import_image(pause)
        self.wait_for_api()
        for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"):
            self.run_daemon(name)
        self._wait(lambda: self.succeeds("get", "serviceaccount", "default"), "the default ServiceAccount", "kubelet")
        self.wait_for_node()
        return self

    @classmethod
    def attach(cls, keeper: Keeper) -> Cluster:
        """The cluster that another process brought up, and will take down: its parts can not be killed from here.
        ProcessError if there is none."""
        cluster = cls(keeper)
        if not cluster.succeeds("get", "--raw", "/readyz"):
            raise ProcessError(f"no cluster answers by {cluster.kubeconfig}")
        return cluster

    def _lay_ground(self, patience: float) -> None:
        code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from harness.kubernetes.ground import main; main()"
        tests = str(Path(__file__).resolve().parents[2])
        self._ground = self.keeper.start(
            "ground",
            ["unshare", "--net", "--mount", sys.executable, "-B", "-c", code, tests, str(os.getpid()), str(patience)],
            grace=60,
        )
        log = self._ground.log
        before = log.read_text(errors="replace").count(ground.READY) if log.exists() else 0
        self._ground.wait_until(
            lambda: log.exists() and log.read_text(errors="replace").count(ground.READY) > before,
            "ready to be built on",
            timeout=patience + 60,
        )

    def inside(self, *command: str | os.PathLike) -> list[str | os.PathLike]:
        """A command as it is run in the cluster's own network and mounts."""
        return ["nsenter", f"--target={self._ground_pid.read_text()}", "--net", "--mount", "--", *command]

    def run_daemon(self, name: str) -> Process:
        """Starts one of its programs, the first time or again after `kill`."""
        command = getattr(self.daemons, name.replace("-", "_"))()
        self.processes[name] = self.keeper.start(
            name,
            self.inside(*command),
            environment=environment_of_daemons(self.folder),
            grace=_GRACE.get(name, 1.0),
        )
        return self.processes[name]

    def kill(self, name: str) -> None:
        """SIGKILL to one program, as a crash would end it; containers and other programs live on."""
        self.processes[name].kill(tree=False)

    def restore(self, name: str) -> None:
        """Starts what was killed again, and waits until all is as before."""
        self.run_daemon(name)
        if name == "etcd":
            self.wait_for_etcd()
        if name == "containerd":
            self.wait_for_containerd()
        self.wait_for_api()
        self.wait_for_node()

    def _wait(self, ready, what: str, name: str, timeout: float = 120) -> None:
        self.processes[name].wait_until(ready, f"followed by {what}", timeout)

    def wait_for_etcd(self) -> None:
        """Returns once etcd answers."""
        check = self.inside(sys.executable, "-c", _ASK, "http://127.0.0.1:2379/health")
        self._wait(lambda: subprocess.run(check, capture_output=True).returncode == 0, "an answer", "etcd")

    def wait_for_containerd(self) -> None:
        """Returns once containerd answers."""
        self._wait(lambda: self.ctr("version").returncode == 0, "an answer", "containerd")

    def wait_for_api(self) -> None:
        """Returns once the API server calls itself ready."""
        self._wait(lambda: self.succeeds("get", "--raw", "/readyz"), "a ready API", "kube-apiserver")

    def is_ready(self, node: str) -> bool:
        """Whether the API server calls a node so."""
        try:
            conditions = self.get("node", node)["status"]["conditions"]
        except KubectlError:
            return False
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def wait_for_node(self) -> None:
        """Returns once the node is ready."""
        self._wait(lambda: self.is_ready(addresses.NODE_NAME), "a ready node", "kubelet")

    def ctr(self, *arguments: str | os.PathLike, daemons: Daemons | None = None) -> subprocess.CompletedProcess:
        """Runs containerd's own client, on the first node unless those of another are given."""
        program = programs.path(next(each for each in programs.CLUSTER if each.file == "ctr"))
        socket = (daemons or self.daemons).containerd_socket
        command = [program, "--address", socket, "--namespace", "k8s.io", *arguments]
        return subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=300)

    def import_image(self, archive: Path, daemons: Daemons | None = None) -> None:
        """Makes an image known to the node, or to another one, from an archive in OCI's format, under the name that is in
        it."""
        done = self.ctr("images", "import", archive, daemons=daemons)
        if done.returncode != 0:
            raise ProcessError(f"the image {archive} could not be imported: {done.stderr.strip()}")

    def images(self) -> set[str]:
        """The names of the images that the node knows."""
        return set(self.ctr("images", "list", "--quiet").stdout.split())

    @property
    def kubectl_program(self) -> Path:
        return programs.path(next(each for each in programs.CLUSTER if each.file == "kubectl"))

    def run_kubectl(
        self, *arguments: str, input: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess:
        """Runs kubectl on this machine, as a user would, whatever its status."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}
        return subprocess.run(
            [self.kubectl_program, *arguments],
            env=environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            **({} if input is not None else {"stdin": subprocess.DEVNULL}),
        )

    def succeeds(self, *arguments: str) -> bool:
        """Whether kubectl ends without an error."""
        try:
            return self.run_kubectl(*arguments, "--request-timeout=5s", timeout=20).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def kubectl(self, *arguments: str, **options: object) -> str:
        """What kubectl prints. KubectlError if it fails."""
        done = self.run_kubectl(*arguments, **options)
        if done.returncode != 0:
            raise KubectlError(f"`kubectl {' '.join(arguments)}`: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, kind: str, name: str | None = None, namespace: str = "default", selector: str | None = None) -> dict:
        """An object or, without a name, the list of all of its kind in the namespace."""
        named = [name] if name else []
        selected = ["--selector", selector] if selector else []
        return json.loads(self.kubectl("get", kind, *named, "--namespace", namespace, *selected, "--output", "json"))

    def pods(self, namespace: str, selector: str | None = None) -> list[dict]:
        """The pods of a namespace that are there now, oldest first."""
        items = self.get("pods", namespace=namespace, selector=selector)["items"]
        return sorted(items, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def apply(self, *objects: dict) -> None:
        """Makes objects, or changes them to this."""
        self.kubectl(
            "apply", "--filename", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def wait(self, condition, what: str, timeout: float = 60, interval: float = 0.1):
        """Polls until `condition` gives something true, and gives that. ProcessError names `what` did not come, and
        what the cluster says of it."""
        end = time.monotonic() + timeout
        while not (found := condition()):
            if time.monotonic() > end:
                events = self.run_kubectl("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp").stdout
                pods = self.run_kubectl("get", "pods", "--all-namespaces", "--output", "wide").stdout
                last = "\n".join(events.splitlines()[-15:])
                raise ProcessError(
                    f"waited {timeout:.0f} s in vain for {what}. Pods:\n{pods}\nThe last events:\n{last}"
                )
            time.sleep(interval)
        return found

    def end(self) -> None:
        """Ends everything, and returns when nothing is left."""
        for name in reversed(list(self.processes)):
            process = self.processes[name]
            if process.running:
                process.stop(grace=_GRACE.get(name, 1.0))
        if self._ground is None:
            return
        if self._ground.running:
            self._ground.stop(grace=60)
        shutil.rmtree(self.folder, ignore_errors=True)


_ASK = "import sys, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=2)"
