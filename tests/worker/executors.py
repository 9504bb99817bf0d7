"""Two ways to run a task: through our executors, and through the worker function of globus-compute-endpoint."""

from __future__ import annotations

import array
import base64
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import uuid
from pathlib import Path

from harness import checkout

PACKAGE = checkout.ROOT / "worker-image" / "python"
ENDPOINT = "11111111-2222-3333-4444-555555555555"
PATIENCE = 60.0


def adopt_orphans() -> None:
    """Makes this process a child subreaper, as the supervisor is: executors are its children only then."""
    if ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) != 0:
        raise OSError("this process cannot be made a child subreaper")


class Ours:
    """The warm process and one executor, driven as the supervisor drives them."""

    def __init__(
        self, folder: Path, environment: dict[str, str] | None = None, python: str = sys.executable, **settings
    ):
        adopt_orphans()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(PATIENCE)
        self._process = subprocess.Popen(
            [python, "-c", (PACKAGE / "bootstrap.py").read_text()],
            stdin=theirs,
            env={**os.environ, **(environment or {})},
            cwd=folder,
        )
        theirs.close()
        files = (PACKAGE / "waypost_executor").glob("*.py")
        given = {
            "modules": {file.stem: file.read_text() for file in files if file.stem != "__init__"},
            "settings": {
                "endpoint_id": ENDPOINT,
                "working_directory": str(folder),
                "sandbox": False,
                "allowed_serializers": [],
                "accelerators": [],
                "result_size_limit": 10 * 1024 * 1024,
                **settings,
            },
        }
        text = json.dumps(given).encode()
        self._control.sendall(len(text).to_bytes(4, "big") + text)
        self._lines = self._control.makefile("r")
        self.said = json.loads(self._lines.readline())
        self._channel: socket.socket | None = None
        if "ready" in self.said:
            self._channel = self.fork()

    def fork(self) -> socket.socket:
        """Has an executor forked and gives its channel."""
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        descriptors = array.array("i", [theirs.fileno(), 2])
        slot = struct.pack("!I", 0)
        self._control.sendmsg([slot], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        theirs.close()
        self.process = json.loads(self._lines.readline())["started"]
        return ours

    @property
    def warm(self) -> int:
        """The warm process' id."""
        return self._process.pid

    def run(self, message: bytes, task: str | None = None, serializers: list[str] | None = None) -> bytes:
        """Runs a task in its wire form to its Result in wire form."""
        assert self._channel is not None, self.said
        paths = "\n".join(serializers or []).encode()
        task = (task or str(uuid.uuid4())).encode()
        head = struct.pack("!II36s", len(message), len(paths), task)
        self._channel.sendall(head + paths + message)
        length, self.outcome, self.nanoseconds, answered = struct.unpack("!IBQ36s", self._read(49))
        assert answered == task
        return self._read(length)

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._channel.recv(count - len(data))
            assert part, "the executor has ended"
            data += part
        return bytes(data)

    def end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._lines.close()
        self._control.close()
        self._process.wait(PATIENCE)


UPSTREAM = """
import base64, inspect, json, os, sys
from globus_compute_endpoint.engines.helper import execute_task
from globus_compute_sdk.serialize import ComputeSerializer
import uuid
output = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
parameters = inspect.signature(execute_task).parameters
for line in sys.stdin:
    case = json.loads(line)
    options = case["options"]
    allowed = options.pop("task_deserializers")
    if "serde" in parameters:
        options["serde"] = ComputeSerializer(allowed_deserializer_types=allowed)
    else:
        options["task_deserializers"] = allowed
    options["result_serializers"] = options["result_serializers"] or None
    result = execute_task(
        task_body=base64.b64decode(case["message"]),
        task_id=uuid.UUID(case["task"]),
        endpoint_id=uuid.UUID(case["endpoint"]),
        run_dir=case["folder"],
        **options,
    )
    print(base64.b64encode(result).decode(), file=output, flush=True)
"""


class Upstream:
    """A process that runs tasks as globus-compute-endpoint's workers do."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None, **settings):
        self._folder = folder
        self._options = {
            "run_in_sandbox": settings.get("sandbox", False),
            "task_deserializers": settings.get("allowed_serializers") or None,
            "result_size_limit": settings.get("result_size_limit", 10 * 1024 * 1024),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", UPSTREAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            cwd=folder,
        )

    def run(self, message: bytes, task: str, serializers: list[str] | None = None) -> bytes:
        """Runs a task in its wire form to its Result in wire form."""
        case = {
            "message": base64.b64encode(message).decode(),
            "task": task,
            "endpoint": ENDPOINT,
            "folder": str(self._folder),
            "options": {**self._options, "result_serializers": serializers or []},
        }
        print(json.dumps(case), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "the endpoint's worker function did not return"
        return base64.b64decode(line)

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait(PATIENCE)
