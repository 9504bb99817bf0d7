"""Functions that tests send to workers."""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable


def by_value(function: Callable) -> Callable:
    """The function as if it stood in the user's own program: sent as code, not as the name of a module that workers
    have not. It sees no global but the builtins, so it imports what it needs."""
    names = {"__builtins__": builtins, "__name__": "__main__"}
    made = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__module__ = "__main__"
    return made


@by_value
def double(number):
    return 2 * number


@by_value
def greet(name, greeting="Hello"):
    return f"{greeting} {name}"


@by_value
def divide(number, by):
    return number / by


@by_value
def payload(size):
    return b"x" * size


@by_value
def sleep_and_return(seconds, value):
    import time

    time.sleep(seconds)
    return value


@by_value
def leave_mark(folder, name, seconds):
    """Writes a new file for each run of the task, so that a second run shows."""
    import os
    import pathlib
    import time
    import uuid

    place = pathlib.Path(folder) / f"{name}.{uuid.uuid4().hex}"
    place.write_text(f"{os.getpid()} {os.environ.get('GC_TASK_UUID')}")
    time.sleep(seconds)
    return name


@by_value
def leave_mark_and_wait(folder, name, gate, seconds):
    """Writes a file, and then waits until the test has made the file `gate`."""
    import os
    import pathlib
    import time

    (pathlib.Path(folder) / name).write_text("")
    end = time.monotonic() + seconds
    while not os.path.exists(gate):
        if time.monotonic() > end:
            raise TimeoutError(f"{gate} did not come within {seconds} s")
        time.sleep(0.02)
    return name


@by_value
def leave_mark_and_sleep(folder, name, pipe):
    """Writes a file, and then sleeps until somebody opens `pipe` to write: it takes no processor from what is measured."""
    import pathlib

    (pathlib.Path(folder) / name).write_text("")
    with open(pipe):
        return name


@by_value
def meet(folder, name, wanted, seconds):
    """Waits until as many tasks as wanted are here, and gives this one's process id."""
    import os
    import pathlib
    import time

    (pathlib.Path(folder) / name).write_text("")
    end = time.monotonic() + seconds
    while len(os.listdir(folder)) < wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"{os.listdir(folder)} are here after {seconds} s")
        time.sleep(0.02)
    return os.getpid()


@by_value
def size_of(data):
    return len(data)


@by_value
def where():
    import os

    return {"pid": os.getpid(), "parent": os.getppid(), "folder": os.getcwd()}


@by_value
def environment(name):
    import os

    return os.environ.get(name)


@by_value
def die_by_signal(number):
    import os
    import time

    print("about to die", flush=True)
    os.kill(os.getpid(), number)
    time.sleep(60)


@by_value
def segfault(noted):
    """Notes the time in a file, and ends by SIGSEGV."""
    import ctypes
    import pathlib
    import time

    pathlib.Path(noted).write_text(str(time.time()))
    ctypes.string_at(0)


def triple(number):
    """Without a decorator, for serializers that send the source."""
    return 3 * number
