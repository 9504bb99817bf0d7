"""The same tasks through the worker function of globus-compute-endpoint and through ours, field by field.

Runs in an environment with both packages; once for each release that is supported.
"""

from __future__ import annotations

import inspect
import json
import re
import uuid

import globus_compute_sdk
import pytest
from globus_compute_sdk import ShellFunction, serialize
from globus_compute_sdk.serialize import (
    CombinedCode,
    ComputeSerializer,
    DillCodeSource,
    DillCodeTextInspect,
    JSONData,
    PureSourceDill,
    PureSourceTextInspect,
)
from worker import functions
from worker.executors import Ours, Upstream

SERIALIZER = ComputeSerializer()
# Releases before 4.0 have no such option.
RETURN_DICT = {"return_dict": True} if "return_dict" in inspect.signature(ShellFunction).parameters else {}
# Releases whose worker leaves out the submitted function from a traceback if that called another.
OUTERMOST_FRAME_LEFT_OUT = tuple(map(int, globus_compute_sdk.__version__.split(".")[:2])) >= (4, 15)


def pack(function, *arguments, code=None, data=None, **keywords):
    serializer = ComputeSerializer(strategy_code=code, strategy_data=data)
    module = getattr(function, "__module__", None)
    if code is not None:
        # The source is looked for where the function says that it is from.
        function.__module__ = functions.__name__
    try:
        return serializer.pack_buffers([serializer.serialize(part) for part in (function, arguments, keywords)])
    finally:
        if code is not None:
            function.__module__ = module


def packed_source(name, source):
    """What the service makes of `register_source_code`."""
    return SERIALIZER.pack_buffers([f"st\n{name}:{source}", SERIALIZER.serialize((20,)), SERIALIZER.serialize({})])


def wire(buffer, kind="task"):
    task = str(uuid.uuid4())
    data = {"task_id": task, "container_id": None, "container": None, "task_buffer": buffer}
    return b"\x01" + json.dumps({"message_type": kind, "data": data}).encode(), task


class Pair:
    """Both ways, in a folder of each, with the same settings."""

    def __init__(self, folder, environment=None, **settings):
        self.folders = [folder / "ours", folder / "upstream"]
        for path in self.folders:
            path.mkdir()
        self.ours = Ours(self.folders[0], environment, **settings)
        self.upstream = Upstream(self.folders[1], environment, **settings)

    def run(self, buffer, serializers=None):
        """Both Results, as what is in them but for the times."""
        message, task = wire(buffer)
        ours = self.ours.run(message, task, serializers)
        upstream = self.upstream.run(message, task, serializers)
        return self._read(ours, task), self._read(upstream, task)

    def _read(self, result, task):
        assert result[:1] == b"\x01"
        message = json.loads(result[1:])
        assert message["message_type"] == "result" and set(message) == {"message_type", "data"}
        data = message["data"]
        assert data["task_id"] == task
        first, second = data["task_statuses"]
        assert isinstance(first["timestamp"], int) and first.pop("timestamp") <= second.pop("timestamp")
        return data

    def end(self):
        self.ours.end()
        self.upstream.end()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    made = Pair(tmp_path_factory.mktemp("plain"))
    yield made
    made.end()


@pytest.fixture
def make_pair(tmp_path):
    made = []

    def make(*arguments, **settings):
        made.append(Pair(tmp_path, *arguments, **settings))
        return made[-1]

    yield make
    for pair in made:
        pair.end()


def value(result):
    assert result["error_details"] is None, result["data"]
    return SERIALIZER.deserialize(result["data"])


VALUES = {
    "a sum": pack(functions.add, 40, y=2),
    "a default": pack(functions.add, 40),
    "nothing": pack(functions.nothing),
    "nested data": pack(functions.nested_data),
    "a function": pack(functions.a_function),
    "a lone surrogate": pack(functions.lone_surrogate),
    "three megabytes": pack(functions.sized, 3_000_000),
    "JSON arguments": pack(functions.add, 40, y=2, data=JSONData),
    "code as source": pack(functions.add, 1, code=PureSourceTextInspect),
    "code as source by dill": pack(functions.add, 1, code=PureSourceDill),
    "code as pickled source": pack(functions.add, 1, code=DillCodeSource),
    "code as inspected text": pack(functions.add, 1, code=DillCodeTextInspect),
    "code combined": pack(functions.add, 1, code=CombinedCode),
    "registered source": packed_source("twice", "import math\n\ndef twice(x):\n    return math.floor(2.1 * x)\n"),
}
if hasattr(serialize, "AllCodeStrategies"):
    VALUES["all code strategies"] = pack(functions.add, 1, code=serialize.AllCodeStrategies)


@pytest.mark.parametrize("name", VALUES)
def test_value_is_equal(pair, name):
    # Twice, so that a function that was seen before is run as well.
    for _ in range(2):
        ours, upstream = pair.run(VALUES[name])
        value(ours)
        assert ours == upstream


ERRORS = {
    "raised at once": pack(functions.raise_directly),
    "raised from another": pack(functions.raise_from),
    "raised while handling": pack(functions.raise_while_handling),
    "an own class": pack(functions.raise_own_class),
    "no text": pack(functions.raise_without_text),
    "many lines": pack(functions.raise_many_lines),
    "a missing module": pack(functions.import_what_is_not_there),
    "missing arguments": pack(functions.add),
    "unexpected arguments": pack(functions.nothing, 1),
    "an unserializable result": pack(functions.unserializable),
    "source with an error": packed_source("f", "def f(x):\n    return y\n"),
    "source that is none": packed_source("f", "def f(x:\n"),
    "source without the function": packed_source("g", "def f(x):\n    return x\n"),
    "a header that nobody knows": SERIALIZER.pack_buffers(["zz\nabc", "00\ngAQpLg==\n", "00\ngAR9lC4=\n"]),
    "bad base64": SERIALIZER.pack_buffers(["01\n!!!", "00\ngAQpLg==\n", "00\ngAR9lC4=\n"]),
    "a bad pickle": SERIALIZER.pack_buffers(["01\naGVsbG8=\n", "00\ngAQpLg==\n", "00\ngAR9lC4=\n"]),
    "two buffers": SERIALIZER.pack_buffers([SERIALIZER.serialize(functions.add), SERIALIZER.serialize((1,))]),
    "no buffer": "",
    "no lengths": "nonsense\nwithout end",
    "a length that is too long": "99999\n01\nabc",
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_is_equal(pair, name):
    ours, upstream = pair.run(ERRORS[name])
    assert ours["error_details"]["code"] == "RemoteExecutionError"
    assert without_entries(ours) == without_entries(upstream)


def without_entries(result):
    """Without the frames that belong to neither the task nor its serializer: of the worker itself, if there is no other,
    and of the way into the serializer, which some releases show."""
    entry = re.compile(
        r'  File "[^"]*(?:serialize/facade\.py", line \d+, in unpack_and_deserialize|(?:engines/helper|parsl/app/python)\.py", line \d+, in \w+'
        r'|waypost_executor/contract\.py>", line \d+, in run)\n(?:    .*\n)*'
    )
    return {**result, "data": entry.sub("", result["data"])}


def test_traceback_begins_with_the_submitted_function(pair):
    ours, upstream = pair.run(pack(functions.raise_deeper))
    names = re.findall(r", in (\S+)\n", ours["data"])
    assert names == ["raise_deeper", "first", "second"]
    if OUTERMOST_FRAME_LEFT_OUT:
        frame = re.compile(r'  File "[^"]*", line \d+, in raise_deeper\n(?:    .*\n)*')
        ours["data"] = frame.sub("", ours["data"], count=1)
    assert ours == upstream


SERIALIZERS = {
    "JSON": (functions.json_text, ["globus_compute_sdk.serialize.JSONData"]),
    "the first that can": (
        functions.nested_data,
        ["globus_compute_sdk.serialize.JSONData", "globus_compute_sdk.serialize.DillDataBase64"],
    ),
    "code": (
        functions.a_function,
        ["globus_compute_sdk.serialize.PureSourceDill", "globus_compute_sdk.serialize.DillCode"],
    ),
    "none that can": (functions.nested_data, ["globus_compute_sdk.serialize.JSONData"]),
    "none that is one": (functions.add, ["globus_compute_sdk.Client", "there.is.none"]),
    "lone surrogates in JSON": (functions.lone_surrogate, ["globus_compute_sdk.serialize.JSONData"]),
}


@pytest.mark.parametrize("name", SERIALIZERS)
def test_result_serializers_are_equal(pair, name):
    function, serializers = SERIALIZERS[name]
    arguments = (1,) if function is functions.add else ()
    ours, upstream = pair.run(pack(function, *arguments), serializers)
    assert ours == upstream


@pytest.mark.parametrize(
    "function",
    [
        ShellFunction("echo out; echo err >&2; exit 3"),
        ShellFunction("echo {word}", **RETURN_DICT),
        ShellFunction("echo before; sleep 20", walltime=0.5),
    ],
    ids=["status", "dictionary", "walltime"],
)
def test_shell_function_is_equal(make_pair, function):
    pair = make_pair(sandbox=True)
    keywords = {"word": "spoken"} if "{word}" in function.cmd else {}
    ours, upstream = map(value, pair.run(pack(function, **keywords)))
    assert repr(ours) == repr(upstream)
    assert "out" in repr(ours) or "spoken" in repr(ours) or "before" in repr(ours)


def test_result_that_is_too_large_is_equal(make_pair):
    pair = make_pair(result_size_limit=1000)
    for size in (10, 2000):
        ours, upstream = pair.run(pack(functions.sized, size))
        assert ours == upstream
    assert ours["error_details"]["code"] == "MaxResultSizeExceeded"


def test_surroundings_are_equal(make_pair):
    pair = make_pair(sandbox=True)
    for _ in range(2):
        ours, upstream = map(value, pair.run(pack(functions.surroundings)))
        in_ours = json.dumps(ours).replace(str(pair.folders[0]), "FOLDER")
        assert in_ours == json.dumps(upstream).replace(str(pair.folders[1]), "FOLDER")
        assert ours[1]["GC_TASK_SANDBOX_DIR"] == ours[0]


def test_surroundings_without_a_sandbox_are_equal(pair):
    ours, upstream = map(value, pair.run(pack(functions.surroundings)))
    assert ours[1] == upstream[1] and ours[1]["GC_TASK_SANDBOX_DIR"] is None
    assert [ours[0], upstream[0]] == list(map(str, pair.folders))


@pytest.mark.parametrize(
    "allowed",
    [
        ["globus_compute_sdk.serialize.PureSourceDill", "globus_compute_sdk.serialize.DillDataBase64"],
        ["globus_compute_sdk.serialize.DillCode", "globus_compute_sdk.serialize.JSONData"],
        ["globus_compute_sdk.*Code", "globus_compute_sdk.*Data"],
    ],
    ids=["function refused", "arguments refused", "everything allowed"],
)
def test_allow_list_is_equal(make_pair, allowed):
    pair = make_pair(allowed_serializers=allowed)
    ours, upstream = pair.run(pack(functions.add, 1))
    assert without_entries(ours) == without_entries(upstream)
    assert ("disabled by current configuration" in ours["data"].replace("\n", " ")) == ("*" not in allowed[0])


def test_timeout_is_equal(make_pair):
    pair = make_pair({"GC_TASK_TIMEOUT": "0.4"})
    ours, upstream = pair.run(pack(functions.spin))
    assert without_entries(ours) == without_entries(upstream)
    assert ours["data"].endswith("parsl.app.errors.AppTimeout\n")
    ours, upstream = pair.run(pack(functions.add, 1))
    assert ours == upstream


def test_timeout_that_is_no_number_is_equal(make_pair):
    pair = make_pair({"GC_TASK_TIMEOUT": "soon"})
    ours, upstream = pair.run(pack(functions.add, 1))
    assert ours["data"].endswith("ValueError: could not convert string to float: 'soon'\n")
    assert upstream["data"].endswith("ValueError: could not convert string to float: 'soon'\n")


def test_message_that_is_no_task_has_the_same_code(pair):
    message = b'\x01{"message_type":"result","data":{"task_id":"5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43","data":"x"}}'
    task = str(uuid.uuid4())
    ours, upstream = (json.loads(run(message, task)[1:])["data"] for run in (pair.ours.run, pair.upstream.run))
    assert ours["error_details"]["code"] == upstream["error_details"]["code"] == "CouldNotExecuteUserTaskError"
    if OUTERMOST_FRAME_LEFT_OUT:
        # Earlier releases word it otherwise.
        assert ours["data"] == upstream["data"] and ours["error_details"] == upstream["error_details"]
