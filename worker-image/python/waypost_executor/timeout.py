"""Raises ``AppTimeout`` in a task that runs longer than ``GC_TASK_TIMEOUT``.

By a timer signal, so that a task that sleeps or waits is woken as well, and no thread is needed.
"""

import signal
import types


class AppTimeout(Exception):
    """An error raised during execution of an app when it exceeds its allotted walltime."""


# The name under which tasks have always seen it.
AppTimeout.__module__ = "parsl.app.errors"

_armed = False


def _raise(_signal, _frame):
    if _armed:
        raise AppTimeout


def start(seconds):
    """Starts the clock."""
    global _armed
    signal.signal(signal.SIGALRM, _raise)
    _armed = True
    signal.setitimer(signal.ITIMER_REAL, seconds)


def stop():
    """Stops the clock: nothing is raised any more."""
    global _armed
    _armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)


def without_handler(traceback):
    """The traceback without the frame of the signal handler, where every ``AppTimeout`` ends."""
    frames = []
    while traceback is not None:
        if traceback.tb_frame.f_code is not _raise.__code__:
            frames.append(traceback)
        traceback = traceback.tb_next
    rebuilt = None
    for frame in reversed(frames):
        rebuilt = types.TracebackType(rebuilt, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return rebuilt
