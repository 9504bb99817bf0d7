"""Packs the tasks that the worker's tests run, with the real serializer: prints ``{name: task_buffer}`` as JSON.
With ``unpack``: prints the value of a result as JSON."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "python"))

from waypost_executor import package  # noqa: E402

# The serializer without the web client: a second less for each test.
package.install()

from globus_compute_sdk.serialize import ComputeSerializer  # noqa: E402


def add(x, y):
    return x + y


def fail(text):
    def deeper():
        raise ValueError(text)

    deeper()


def segfault(text):
    import ctypes

    print("before the end:", text)
    ctypes.string_at(0)


def leave(code):
    import os

    print("leaving")
    os._exit(code)


def abort_silently():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGABRT)


def nap(seconds):
    import time

    time.sleep(seconds)
    return seconds


def nap_deaf(seconds):
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(end - time.monotonic())
        except Exception:
            pass
    return "slept"


def wait_for(path):
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.005)
    return "saw it"


def touch(path):
    open(path, "w").close()
    return "touched"


def large(size):
    return "x" * size


def speak(words, times):
    import sys

    for number in range(times):
        print(words, number)
    print("to stderr", file=sys.stderr)
    sys.stdout.write("unfinished")
    return times


def leave_processes_behind(path):
    import json
    import os
    import subprocess

    child = subprocess.Popen(["sleep", "1000"])
    session = subprocess.Popen(["sleep", "1001"], start_new_session=True)
    daemon = subprocess.run(
        ["bash", "-c", "setsid sleep 1002 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    forked = os.fork()
    if forked == 0:
        import time

        time.sleep(1003)
        os._exit(0)
    pids = [child.pid, session.pid, int(daemon.stdout), forked]
    if path is None:
        return pids
    with open(path + ".part", "w") as file:
        json.dump(pids, file)
    os.rename(path + ".part", path)
    os._exit(9)
    return None


def describe_surroundings():
    import os
    import threading

    return {
        "cwd": os.getcwd(),
        "uuid": os.environ["GC_TASK_UUID"],
        "sandbox": os.environ.get("GC_TASK_SANDBOX_DIR"),
        "session": os.getsid(0) == os.getpid(),
        "threads": threading.active_count(),
        "stdin": os.read(0, 10).decode(),
        "pid": os.getpid(),
        "parent": os.getppid(),
    }


def accelerators(gate):
    import os
    import time

    while not os.path.exists(gate):
        time.sleep(0.01)
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "ZE_ENABLE_PCI_ID_DEVICE_ORDER")
    return [os.environ.get(name) for name in names]


def grow(megabytes, seconds):
    import time

    held = bytearray(megabytes * 1024 * 1024)
    for position in range(0, len(held), 4096):
        held[position] = 1
    time.sleep(seconds)
    return len(held)


def creep(megabytes):
    import time

    held = []
    for _ in range(megabytes):
        held.append(b"x" * 1024 * 1024)
        time.sleep(0.005)
    return len(held)


def close_everything():
    import os
    import time

    os.closerange(3, 1000)
    time.sleep(30)


def use_package():
    import globus_compute_sdk

    return [globus_compute_sdk.__version__, globus_compute_sdk.Executor.__name__, globus_compute_sdk.serialize.__name__]


serializer = ComputeSerializer()
if sys.argv[1:] == ["unpack"]:
    json.dump(serializer.deserialize(sys.stdin.read()), sys.stdout)
    sys.exit()
# Tasks name their arguments themselves, so one line per task comes in: [name, function, args, kwargs].
buffers = {}
for name, function, arguments, keywords in json.load(sys.stdin):
    if function == "shell":
        from globus_compute_sdk.sdk.shell_function import ShellFunction

        function = ShellFunction(arguments.pop(0))
    else:
        function = globals()[function]
    parts = [serializer.serialize(part) for part in (function, tuple(arguments), keywords)]
    buffers[name] = serializer.pack_buffers(parts)
json.dump(buffers, sys.stdout)
