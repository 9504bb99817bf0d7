"""What the kernel says about processes: parents, descendants, command lines, and the owner of a port."""

from __future__ import annotations

import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path

_SET_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Makes this process the new parent of every descendant whose own parent ends (prctl(2))."""
    if _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_CHILD_SUBREAPER")


def prepare_child() -> None:
    """For use between fork and exec: the kernel kills the child when its parent ends (prctl(2)), and signals that the
    parent or its own starter ignores are heard again."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def end_by_signals() -> None:
    """From now on SIGTERM and SIGHUP end this process as an error does: what it began is ended, too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)


def _interrupted(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


@dataclass(frozen=True)
class Seen:
    """A process as it was seen in /proc."""

    pid: int
    parent: int
    state: str
    started: int
    """Clock ticks after boot; with the pid it names a process for good."""
    command: str

    @property
    def is_zombie(self) -> bool:
        return self.state in "ZX"


def look_at(pid: int) -> Seen | None:
    """The process with this id, or None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    text = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return Seen(pid, int(fields[1]), fields[0], int(fields[19]), text or f"[{name}]")


def all_processes() -> list[Seen]:
    """Every process that /proc shows."""
    found = (look_at(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return [seen for seen in found if seen is not None]


def descendants(pid: int) -> list[Seen]:
    """The children of a process, their children and so on; zombies, which no longer run, are left out."""
    children: dict[int, list[Seen]] = {}
    for seen in all_processes():
        children.setdefault(seen.parent, []).append(seen)
    found: list[Seen] = []
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child.pid)
    return [seen for seen in found if not seen.is_zombie]


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty if it is gone or belongs to somebody else."""
    try:
        block = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in block.split(b"\0") if entry)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}


def with_environment(name: str, value: str) -> list[Seen]:
    """The processes that were started with this variable set to this value, the caller left out."""
    return [
        seen
        for seen in all_processes()
        if seen.pid != os.getpid() and not seen.is_zombie and environment_of(seen.pid).get(name) == value
    ]


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal; a process that is already gone is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def proportional_memory(pid: int) -> int:
    """Proportional set size (PSS) in bytes: own pages plus a fair share of those that are shared."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"the kernel gives no proportional set size for process {pid}")


def peak_memory(pid: int) -> int:
    """The largest resident set, in bytes, that the process has had so far (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"the kernel gives no peak memory for process {pid}")


def listener_on(port: int) -> str | None:
    """Who listens on a TCP port of this machine: "name (process N)", or a hint if that is not ours to see."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    if not sockets:
        return None
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            links = {os.readlink(f"/proc/{entry}/fd/{number}") for number in os.listdir(f"/proc/{entry}/fd")}
        except OSError:
            continue
        if links & sockets:
            seen = look_at(int(entry))
            if seen is not None:
                return f"process {seen.pid}: {seen.command[:100]}"
    return "a process of another user"
