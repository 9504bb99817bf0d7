"""What Globus Compute promises to a task, and what it puts into a result.

The facts are those of ``globus-compute-endpoint`` 4.19: environment, working directory, error codes and texts,
and the fields of a Result.
"""

import inspect
import json
import os
import platform
import sys
import time
import traceback

import dill
from globus_compute_sdk.errors import MaxResultSizeExceeded
from globus_compute_sdk.serialize import DEFAULT_STRATEGY_DATA, ComputeSerializer
from globus_compute_sdk.version import __version__ as sdk_version

from waypost_executor import plain, timeout

try:
    from json.encoder import c_encode_basestring as _quote
except ImportError:
    _quote = None
_quote = _quote or json.encoder.encode_basestring

SUCCESS, RAISED, TOO_LARGE, NOT_A_TASK = range(4)

#: No message on the link may be larger; a little is left for what stands around the data.
WIRE_LIMIT = 64 * 1024 * 1024 - 64 * 1024

_FUNCTIONS_KEPT = 256
_FUNCTION_BYTES_KEPT = 32 * 1024 * 1024
_OTHER_MESSAGES = {"result": "Result", "ep_status_report": "EPStatusReport"}


class CouldNotExecuteUserTaskError(Exception):
    """The message was not a task."""


# Early releases of the SDK name the class, later ones an instance.
_DATA = DEFAULT_STRATEGY_DATA() if isinstance(DEFAULT_STRATEGY_DATA, type) else DEFAULT_STRATEGY_DATA
_INTERNAL = (CouldNotExecuteUserTaskError, MaxResultSizeExceeded)


class Functions:
    """The functions that were seen: one that comes again is not unpacked again."""

    def __init__(self):
        self._kept = {}
        self._bytes = 0

    def get(self, packed):
        """The function of this packed form, if it is kept."""
        return self._kept.get(packed)

    def keep(self, packed, function):
        """Keeps a function; the oldest make room for it."""
        self._kept[packed] = function
        self._bytes += len(packed)
        while self._bytes > _FUNCTION_BYTES_KEPT or len(self._kept) > _FUNCTIONS_KEPT:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._bytes -= len(oldest)


def _serializer(allowed):
    if not allowed:
        return ComputeSerializer()
    if "allowed_deserializer_types" not in inspect.signature(ComputeSerializer).parameters:
        raise RuntimeError(f"globus-compute-sdk {sdk_version} cannot limit serializers: a later release is needed")
    return ComputeSerializer(allowed_deserializer_types=list(allowed))


class Contract:
    """Runs one task after the other as Globus Compute's own worker would."""

    def __init__(self, endpoint_id, working_directory, sandbox=False, allowed_serializers=None, result_size_limit=None):
        self._serializer = _serializer(allowed_serializers)
        # Releases of the SDK without it know of no choice of serializers.
        self._pack = getattr(self._serializer, "serialize_from_list", lambda data, _: self._serializer.serialize(data))
        # A serializer that is limited looks at what it unpacks itself.
        self._plain = None if allowed_serializers else plain.Plain(_DATA, dill.settings["protocol"])
        self._functions = Functions()
        self._no_keywords = set()
        self._directory = os.path.realpath(working_directory)
        self._sandbox = sandbox
        self._limit = result_size_limit or 10 * 1024 * 1024
        details = {
            "os": platform.platform(),
            "dill_version": dill.__version__,
            "python_version": platform.python_version(),
            "globus_compute_sdk_version": sdk_version,
            "endpoint_id": endpoint_id,
        }
        self._details = json.dumps(details)

    def run(self, task_id, serializers, message):
        """Runs the task in ``message`` (its wire form) and gives ``(outcome, nanoseconds, Result in wire form)``."""
        process = os.getpid()
        start = time.time_ns()
        try:
            self._enter(task_id)
            function, arguments, keywords = self._unpack(_task_buffer(message))
            seconds = max(0.0, float(os.environ.get("GC_TASK_TIMEOUT", 0.0)))
            if seconds > 0.0:
                timeout.start(seconds)
                try:
                    returned = function(*arguments, **keywords)
                finally:
                    timeout.stop()
            else:
                returned = function(*arguments, **keywords)
            data = None
            if not serializers and not callable(returned):
                try:
                    # What the serializer tries first, without its way to it.
                    data = self._plain.pack(returned) if self._plain else None
                    if data is None:
                        data = _DATA.serialize(returned)
                except Exception:
                    data = None
            if data is None:
                data = self._pack(returned, serializers)
            if len(data) > self._limit:
                raise MaxResultSizeExceeded(len(data), self._limit)
            outcome, error = SUCCESS, "null"
        except (Exception, SystemExit, KeyboardInterrupt) as exception:
            if os.getpid() != process:
                _end_child(exception)
            outcome, data, error = _describe(exception)
        if os.getpid() != process:
            _end_child()
        end = time.time_ns()
        wire = self._result(task_id, data, error, start, end)
        if len(wire) > WIRE_LIMIT:
            outcome, data, error = _describe(MaxResultSizeExceeded(len(wire), WIRE_LIMIT))
            wire = self._result(task_id, data, error, start, end)
        return outcome, end - start, wire

    def _enter(self, task_id):
        environment = os.environ
        if "GC_TASK_SANDBOX_DIR" in environment:
            del environment["GC_TASK_SANDBOX_DIR"]
        environment["GC_TASK_UUID"] = task_id
        directory = self._directory
        if self._sandbox:
            directory = os.path.join(directory, task_id)
            environment["GC_TASK_SANDBOX_DIR"] = directory
        try:
            os.chdir(directory)
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)
            os.chdir(directory)

    def _unpack(self, packed):
        parts = _split(packed)
        if parts is None:
            # Not three parts: the serializer raises the error that is its own.
            return self._serializer.unpack_and_deserialize(packed)
        function_part, arguments_part, keywords_part = parts
        function = self._functions.get(function_part)
        if function is None:
            function = self._serializer.deserialize(function_part)
            self._functions.keep(function_part, function)
        is_plain, arguments = self._plain.unpack(arguments_part) if self._plain else (False, None)
        if not is_plain:
            arguments = self._serializer.deserialize(arguments_part)
        if keywords_part in self._no_keywords:
            return function, arguments, {}
        keywords = self._serializer.deserialize(keywords_part)
        if type(keywords) is dict and not keywords and len(keywords_part) <= 40 and len(self._no_keywords) < 16:
            self._no_keywords.add(keywords_part)
        return function, arguments, keywords

    def _result(self, task_id, data, error, start, end):
        text = (
            f'{{"message_type":"result","data":{{"task_id":"{task_id}","data":{_quote(data)},"details":{self._details},'
            f'"error_details":{error},"task_statuses":['
            f'{{"timestamp":{start},"state":"execution-start","actor":"worker"}},'
            f'{{"timestamp":{end},"state":"execution-end","actor":"worker"}}]}}}}'
        )
        try:
            return b"\x01" + text.encode()
        except UnicodeEncodeError:
            # Lone surrogates have no UTF-8, but JSON can escape them.
            return b"\x01" + text.replace(_quote(data), json.dumps(data), 1).encode("ascii")


def _end_child(exception=None):
    """Ends a process that the task forked and that came back from the task, as it would end at the end of a program. The
    task is the parent's: a child that answered for it would take the next task too, and be ended in the midst of it."""
    status = 0
    try:
        if isinstance(exception, SystemExit) and (exception.code is None or isinstance(exception.code, int)):
            status = int(exception.code or 0) & 0xFF
        elif exception is not None:
            status = 1
            traceback.print_exception(type(exception), exception, exception.__traceback__)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _task_buffer(message):
    size = len(message)
    head = bytes(message[:8])
    if head[:1] != b"\x01":
        raise CouldNotExecuteUserTaskError(f"Not a message of version 1 (from: [{size} bytes] 0x{head.hex()}...)")
    try:
        envelope = json.loads(str(message[1:], "utf-8"))
        kind = envelope["message_type"]
        if kind == "task":
            buffer = envelope["data"]["task_buffer"]
            if type(buffer) is str:
                return buffer
            raise TypeError("task_buffer is not a string")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CouldNotExecuteUserTaskError(
            f"Not a task: {type(error).__name__}: {error} (from: [{size} bytes] 0x{head.hex()}...)"
        ) from None
    kind = _OTHER_MESSAGES.get(kind, kind)
    raise CouldNotExecuteUserTaskError(
        f"Non Task-type message received: {kind} (from: [{size} bytes] 0x{head.hex()}...)"
    )


def _split(packed):
    """The three parts of a packed task, or ``None`` if it is not made of three."""
    try:
        length_end = packed.index("\n")
        function_end = length_end + 1 + int(packed[:length_end])
        arguments_start = packed.index("\n", function_end) + 1
        arguments_end = arguments_start + int(packed[function_end : arguments_start - 1])
        keywords_start = packed.index("\n", arguments_end) + 1
        keywords_end = keywords_start + int(packed[arguments_end : keywords_start - 1])
    except ValueError:
        return None
    ordered = length_end < function_end < arguments_start <= arguments_end < keywords_start <= keywords_end
    if not ordered or keywords_end != len(packed):
        return None
    return (
        packed[length_end + 1 : function_end],
        packed[arguments_start:arguments_end],
        packed[keywords_start:keywords_end],
    )


def _describe(exception):
    """Outcome, data and ``error_details`` (as JSON) of a task that raised."""
    if isinstance(exception, _INTERNAL):
        outcome = TOO_LARGE if isinstance(exception, MaxResultSizeExceeded) else NOT_A_TASK
        details = {"code": type(exception).__name__, "user_message": f"remote error: {exception}"}
        return outcome, repr(exception), json.dumps(details)
    frames = exception.__traceback__
    if isinstance(exception, timeout.AppTimeout):
        frames = timeout.without_handler(frames)
    own = _describe.__code__.co_filename
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename == own:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(exception), exception, frames))
    except Exception as second:
        # The exception's own __str__ or __repr__ raised.
        text = f"{type(exception).__name__} (its text cannot be shown: {type(second).__name__})\n"
    details = {
        "code": "RemoteExecutionError",
        "user_message": "An error occurred during the execution of this task",
    }
    return RAISED, text, json.dumps(details)
