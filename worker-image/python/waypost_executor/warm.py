"""The warm process: it has imported what unpacking needs, has one thread, and forks executors.

It forks twice, so that each executor becomes a child of the supervisor, which then learns how it ended. Its standard
input is the control socket; each byte on it asks for an executor and brings two file descriptors: its channel and where
its output goes. Each answer is a line of JSON.
"""

import array
import gc
import json
import os
import signal
import socket
import sys
import threading
import time

from waypost_executor import executor, native

_DESCRIPTORS = 2


def run(control, contract, ready):
    """Says ``ready``, then forks an executor for each byte that comes, until the control socket is closed."""
    _assert_one_thread()
    gc.collect()
    gc.freeze()
    _say(control, ready)
    supervisor = os.getppid()
    room = array.array("i", [-1] * _DESCRIPTORS)
    while True:
        try:
            data, ancillary, _flags, _address = control.recvmsg(
                1, socket.CMSG_SPACE(_DESCRIPTORS * room.itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except InterruptedError:
            continue
        if not data:
            return
        descriptors = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        channel, output = descriptors
        try:
            process = _fork(control, supervisor, channel, output, contract)
            _say(control, {"started": process})
        except OSError as error:
            _say(control, {"failed": f"an executor cannot be forked: {error}"})
        finally:
            os.close(channel)
            os.close(output)


def _assert_one_thread():
    native_threads = len(os.listdir("/proc/self/task"))
    if native_threads != 1 or threading.active_count() != 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        raise RuntimeError(f"the warm process has {native_threads} threads ({names}) and must not fork")


def _say(control, what):
    control.sendall(json.dumps(what).encode() + b"\n")


def _fork(control, supervisor, channel, output, contract):
    """Forks an executor as a grandchild and gives its process id."""
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            os.close(reader)
            try:
                process = os.fork()
            except OSError as error:
                os.write(writer, f"!{error}".encode())
                os._exit(0)
            if process != 0:
                os.write(writer, str(process).encode())
                os._exit(0)
            os.close(writer)
            control.close()
            _become_executor(supervisor, channel, output, contract)
        finally:
            # No child may return into the warm process' own loop.
            os._exit(70)
    os.close(writer)
    try:
        said = os.read(reader, 1000).decode()
    finally:
        os.close(reader)
        os.waitpid(between, 0)
    if not said or said.startswith("!"):
        raise OSError(said[1:] or "the process that was to fork it ended")
    return int(said)


def _become_executor(supervisor, channel, output, contract):
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    native.adopt_orphans()
    # Lines appear when they are printed, so that the last ones are known when a task ends its process.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    # Until the process in between has ended it is the parent, and its end is not the supervisor's.
    while os.getppid() != supervisor:
        if os.getppid() == 1 and supervisor != 1:
            os._exit(70)
        time.sleep(0.0002)
    native.die_with_parent(signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(70)
    try:
        # If the kernel must end something for want of memory, then a task rather than the supervisor.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        pass
    try:
        executor.serve(channel, contract)
    except BrokenPipeError:
        pass
    os._exit(0)
