"""The ground on which a cluster stands: a network, mounts and control groups of its own, apart from the machine's.

A process that is started by `unshare --net --mount`. The kernel ends a network and its rules, and unmounts what is
mounted, with the last process in them; so a cluster leaves nothing of that kind even if all is killed at once. What
does not end by itself (processes in containers, control groups, a few kernel parameters) this process clears when it
is told to end, and when it starts, in case the one before it was killed, too.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness import processes
from harness.keeper_process import MARK
from harness.kubernetes import addresses

CLUSTER = "WAYPOST_CLUSTER"
"""Environment variable of every program of a cluster, and of the shims that containerd leaves; its value is the cache."""

CONTROL_GROUP = f"waypost-{hashlib.sha256(str(addresses.cache()).encode()).hexdigest()[:8]}"
"""The control group, in every hierarchy, below which all pods are."""

OUTER_LINK = "waypost0"
INNER_LINK = "node0"

READY = "the ground is laid"

# Fixed places where a node's programs write. Only the cluster sees what they write there.
_COVERED = ("/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet")

# The kubelet sets these for the whole machine.
_PARAMETERS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)

_SET_DEATH_SIGNAL = 1


def control_groups() -> list[Path]:
    """The cluster's control group in each hierarchy: one in version 2, one for each controller in version 1."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top / CONTROL_GROUP]
    return [hierarchy / CONTROL_GROUP for hierarchy in top.iterdir() if (hierarchy / "cgroup.procs").exists()]


def make_control_group(group: Path) -> None:
    """Makes a control group in which a kubelet can make others."""
    group.mkdir(exist_ok=True)
    parent = group.parent
    if (parent / "cgroup.controllers").exists():
        wanted = {"cpu", "cpuset", "memory", "pids", "io", "hugetlb"}
        for place in (parent, group):
            there = wanted & set((place / "cgroup.controllers").read_text().split())
            (place / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(there)))
    for name in ("cpuset.cpus", "cpuset.mems"):
        # In version 1 a new group has none, and may run nothing.
        if (parent / name).exists() and not (group / name).read_text().strip():
            (group / name).write_text((parent / name).read_text())


def members(pod: str) -> set[int]:
    """The processes in the containers of a pod, which is named by its unique id. Containers come and go meanwhile."""
    found: set[int] = set()
    # Each node has its own below the cluster's.
    tops = [top for group in control_groups() for top in (group / "kubepods", *group.glob("*/kubepods"))]
    for top in tops:
        for parent in (top, top / "burstable", top / "besteffort"):
            folder = parent / f"pod{pod}"
            try:
                containers = os.listdir(folder)
            except OSError:
                continue
            for container in containers:
                try:
                    found.update(int(line) for line in (folder / container / "cgroup.procs").read_text().split())
                except OSError:
                    continue
    return found


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` failed with status {done.returncode}: {done.stderr.strip()}")


class Ground:
    """The parts of the ground, under `folder` (the cache)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.parameters = folder / "parameters.json"
        self.made = folder / "mount-points.json"

    def claim(self, outside: int, patience: float) -> int:
        """Takes the only place for a cluster that a network has: the lock's file descriptor. TimeoutError if another
        has it for longer than `patience` seconds."""
        lock = os.open(f"/proc/{outside}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > end:
                    others = [seen for seen in processes.all_processes() if __name__ in seen.command]
                    pids = ", ".join(str(seen.pid) for seen in others if seen.pid != os.getpid())
                    raise TimeoutError(
                        "a cluster is running on this machine already, and there can be one at a time "
                        f"(process {pids} holds its place)"
                    ) from None
                time.sleep(0.1)

    def lay(self, outside: int) -> None:
        """Makes what the cluster stands on. `outside` is a process in the machine's own network."""
        self.lay_mounts()
        self.lay_control_groups()
        saved = {name: Path("/proc/sys", name).read_text().strip() for name in _PARAMETERS}
        self.parameters.write_text(json.dumps(saved))
        self.lay_network(outside)

    def lay_mounts(self) -> None:
        made = [place for place in _COVERED if not Path(place).exists()]
        self.made.write_text(json.dumps(made))
        for place in _COVERED:
            Path(place).mkdir(parents=True, exist_ok=True)
            _run("mount", "-t", "tmpfs", "-o", "mode=755", "waypost", place)
        # Pods may ask for mounts that show in them later.
        _run("mount", "--make-rshared", "/")

    def lay_control_groups(self) -> None:
        for group in control_groups():
            make_control_group(group)

    def lay_network(self, outside: int) -> None:
        enter = f"nsenter --target {outside} --net ip"
        # The kernel may still be busy with the end of the network before this one.
        subprocess.run([*enter.split(), "link", "del", OUTER_LINK], capture_output=True)
        _run("ip", "link", "set", "lo", "up")
        _run(*f"ip link add {INNER_LINK} type veth peer name {OUTER_LINK} netns {outside}".split())
        _run(*f"ip addr add {addresses.NODE}/{addresses.LINK_PREFIX} dev {INNER_LINK}".split())
        _run(*f"ip link set {INNER_LINK} up".split())
        _run(*f"{enter} addr add {addresses.HOST}/{addresses.LINK_PREFIX} dev {OUTER_LINK}".split())
        _run(*f"{enter} link set {OUTER_LINK} up".split())
        for network in (addresses.POD_NETWORK, addresses.SERVICE_NETWORK):
            _run(*f"{enter} route add {network} via {addresses.NODE} dev {OUTER_LINK}".split())
        for name in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
            parameter = Path("/proc/sys", name)
            if parameter.exists():
                parameter.write_text("1")

    def clear(self) -> None:
        """Ends and removes whatever is left of a cluster."""
        end = time.monotonic() + 20
        while (left := self.left_processes()) and time.monotonic() < end:
            for pid in left:
                processes.kill(pid)
            time.sleep(0.02)
        for group in control_groups():
            self.remove_group(group, end)
        if self.parameters.exists():
            for name, value in json.loads(self.parameters.read_text()).items():
                Path("/proc/sys", name).write_text(value)
            self.parameters.unlink()
        subprocess.run(["ip", "link", "del", INNER_LINK], capture_output=True)
        self.remove_run_folder()

    def remove_run_folder(self) -> None:
        """Removes what the cluster kept while it ran, and nothing that is only mounted there."""
        run = self.folder / "run"
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        below = [place for place in mounts if place.startswith(f"{run}/")]
        for place in reversed(below):
            subprocess.run(["umount", "-l", place], check=True, capture_output=True)
        shutil.rmtree(run, ignore_errors=True)

    def left_processes(self) -> set[int]:
        """What runs in a container of ours, and what carries our mark."""
        found = {seen.pid for seen in processes.with_environment(CLUSTER, str(self.folder))}
        for group in control_groups():
            for member in group.rglob("cgroup.procs"):
                try:
                    found.update(int(line) for line in member.read_text().split())
                except OSError:
                    continue
        return found - {os.getpid(), 0}

    def remove_group(self, group: Path, end: float) -> None:
        """Removes a control group and those below it. A group is busy until its last process is reaped."""
        while group.exists():
            busy = False
            for folder in [*sorted((each for each in group.rglob("*") if each.is_dir()), reverse=True), group]:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    busy = True
            if busy and time.monotonic() > end:
                raise TimeoutError(f"the control group {group} could not be removed: it is in use")
            time.sleep(0.02)

    def remove_mount_points(self) -> None:
        """Removes, after the mounts over them, the folders that were made to be mounted over."""
        if not self.made.exists():
            return
        for place in json.loads(self.made.read_text()):
            subprocess.run(["umount", "-l", place], capture_output=True)
            try:
                Path(place).rmdir()
            except OSError:
                pass
        self.made.unlink()


def main() -> None:
    """Arguments: a process in the machine's own network, and the seconds to wait for another cluster to end."""
    if MARK in os.environ:
        # Whoever ends what is marked would end us before we have cleared up.
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        os.execve(sys.executable, [sys.executable, "-B", "-c", *sys.orig_argv[3:]], environment)
    # Our starter kills us when it ends, by default. We want to be asked.
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    parent = os.getppid()
    ground = Ground(addresses.cache())
    try:
        outside = int(sys.argv[1])
        lock = ground.claim(outside, float(sys.argv[2]))
    except TimeoutError as error:
        sys.exit(str(error))
    ground.clear()
    ground.remove_mount_points()
    try:
        ground.lay(outside)
        print(READY, flush=True)
        if os.getppid() == parent:
            signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    finally:
        ground.clear()
        ground.remove_mount_points()
        os.close(lock)
