"""The warm process: it has imported what unpacking needs, has one thread, and forks executors.

It forks twice, so that each executor becomes a child of the supervisor, which then learns how it ended. Its standard
input is the control socket; each message on it is the number of a slot (``!I``), asks for its executor, and brings two
file descriptors: the executor's channel and where its output goes. Each answer is a line of JSON.
"""

import array
import gc
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

from waypost_executor import accelerators, executor, native

_DESCRIPTORS = 2
_SLOT = struct.Struct("!I")


def run(control, contract, names, ready):
    """Says ``ready``, then forks an executor for each request that comes, until the control socket is closed. ``names``
    are those of the slots' accelerators."""
    _assert_one_thread()
    gc.collect()
    gc.freeze()
    _say(control, ready)
    supervisor = os.getppid()
    room = array.array("i", [-1] * _DESCRIPTORS)
    while True:
        try:
            data, ancillary, _flags, _address = control.recvmsg(
                _SLOT.size, socket.CMSG_SPACE(_DESCRIPTORS * room.itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except InterruptedError:
            continue
        if not data:
            return
        # What comes with descriptors is never cut, nor joined with what comes after.
        (slot,) = _SLOT.unpack(data)
        name = names[slot] if names else None
        descriptors = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        channel, output = descriptors
        try:
            process = _fork(control, supervisor, channel, output, contract, name)
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


def _fork(control, supervisor, channel, output, contract, accelerator):
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
            _become_executor(supervisor, channel, output, contract, accelerator)
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


def _become_executor(supervisor, channel, output, contract, accelerator):
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if accelerator is not None:
        accelerators.pin(accelerator)
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
