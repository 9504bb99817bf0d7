"""One executor: reads a task, runs it, writes its result, until its channel is closed.

A request is ``length of body, length of serializers, task id`` (``!II36s``), the serializers joined by newlines, the
body. An answer is ``length of body, outcome, nanoseconds, task id`` (``!IBQ36s``), then the body.
"""

import os
import struct
import sys

from waypost_executor import strays

_REQUEST = struct.Struct("!II36s")
_ANSWER = struct.Struct("!IBQ36s")
#: Requests up to this size are read into one buffer that stays: an allocation of this size for each would be a system
#: call, and its pages would be touched for the first time again and again.
_READ = 64 * 1024


def serve(channel, contract):
    """Runs the tasks that come on the file descriptor ``channel``."""
    buffer = memoryview(bytearray(_READ))
    while True:
        data = _receive(channel, buffer)
        if data is None:
            return
        body_length, serializers_length, task = _REQUEST.unpack_from(data)
        start = _REQUEST.size + serializers_length
        serializers = ()
        if serializers_length:
            serializers = tuple(str(data[_REQUEST.size : start], "utf-8").split("\n"))
        task_id = str(task, "ascii")
        outcome, nanoseconds, body = contract.run(task_id, serializers, data[start : start + body_length])
        del data
        _flush()
        strays.end()
        _send(channel, _ANSWER.pack(len(body), outcome, nanoseconds, task), body)


def _receive(channel, buffer):
    """A whole request, or ``None`` when the channel is closed. Small ones come in a single read, into ``buffer``."""
    filled = 0
    while filled < _REQUEST.size:
        count = os.readv(channel, (buffer[filled:],))
        if count == 0:
            return None
        filled += count
    body_length, serializers_length, _task = _REQUEST.unpack_from(buffer)
    total = _REQUEST.size + serializers_length + body_length
    if filled == total:
        return buffer[:total]
    view = buffer
    if total > len(buffer):
        view = memoryview(bytearray(total))
        view[:filled] = buffer[:filled]
    view = view[:total]
    while filled < total:
        count = os.readv(channel, (view[filled:],))
        if count == 0:
            return None
        filled += count
    return view


def _send(channel, head, body):
    written = os.writev(channel, (head, body)) - len(head)
    if written < len(body):
        if written < 0:
            raise OSError("the channel took less than the head of an answer")
        view = memoryview(body)
        while written < len(body):
            written += os.write(channel, view[written:])


def _flush():
    # A task may have closed or replaced them.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: S110 - there is nowhere left to say it
            pass
