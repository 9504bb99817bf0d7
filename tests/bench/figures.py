"""What a tree of processes costs, as the kernel accounts for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness import processes

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """CPU seconds since the processes began, and their proportional set size in MiB."""

    cpu_seconds: float
    memory_mib: float


def usage_of_tree(pid: int) -> Usage:
    """The usage of a process and all its descendants."""
    return usage_of([pid, *(seen.pid for seen in processes.descendants(pid))])


def usage_of(pids: list[int]) -> Usage:
    """The usage of some processes. One that ends meanwhile counts for nothing."""
    ticks = memory_kib = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        # utime and stime, and those of children that it has reaped (proc(5)).
        ticks += sum(map(int, fields[11:15]))
        memory_kib += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return Usage(ticks / TICKS_PER_SECOND, memory_kib / 1024)
