"""Ends the processes that a task leaves running.

An executor adopts its orphaned descendants, so all that a task left are children of the executor, or become so when
their parent is killed. If nothing was left, one system call says so.
"""

import os
import signal
import time


def end():
    """Kills every descendant of this process and reaps it; one that the kernel holds for over 5 s is left."""
    try:
        while True:
            # Children that have ended already are reaped here, and the first that has not is found.
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
    except ChildProcessError:
        return
    give_up = time.monotonic() + 5.0
    while time.monotonic() < give_up:
        for child in _children():
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        # Killed processes end at once, save those deep in the kernel; new children may come to us meanwhile.
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        time.sleep(0.0005)


def _children():
    own = os.getpid()
    try:
        found = []
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                found.extend(int(child) for child in file.read().split())
        return found
    except OSError:
        return [child for child in _processes() if _parent(child) == own]


def _processes():
    # For kernels without CONFIG_PROC_CHILDREN.
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(process):
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
