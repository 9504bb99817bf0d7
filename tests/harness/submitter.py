"""A program of the SDK in a process of its own, for when its login or its services end under it."""

from __future__ import annotations

from pathlib import Path

from harness import checkout
from harness.environments import PythonEnvironment
from harness.functions import double, leave_mark_and_wait
from harness.keeper import Keeper, Process

PATIENCE = 120

PROGRAM = f"""
import sys
from globus_compute_sdk import Executor
from harness.functions import {double.__name__}, {leave_mark_and_wait.__name__}
with Executor(endpoint_id=sys.argv[1]) as executor:
    # Until a first result has come the SDK may yet be asking, with its login, where results are.
    executor.submit({double.__name__}, 1).result({PATIENCE})
    print(executor.submit({leave_mark_and_wait.__name__}, *sys.argv[2:], {PATIENCE}).result({PATIENCE}))
"""


class Submitter:
    """Submits a task, which is at work once the file `running` is there, and ends when the file `gate` is; then prints
    its result."""

    def __init__(
        self, keeper: Keeper, python: PythonEnvironment, environment: dict[str, str], endpoint: str, folder: Path
    ):
        folder.mkdir()
        self.running = folder / "running"
        self.gate = folder / "gate"
        arguments = [endpoint, str(folder), self.running.name, str(self.gate)]
        self.process: Process = keeper.start(
            "submitter",
            [python.python, "-B", "-c", PROGRAM, *arguments],
            environment={**environment, "PYTHONPATH": str(checkout.ROOT / "tests")},
            directory=folder,
        )
        self.process.wait_until(self.running.exists, "running its task", PATIENCE)

    def result(self) -> str:
        """What the task gave, once it has."""
        status = self.process.wait(PATIENCE)
        assert status == 0, self.process.ending()
        return self.process.said().strip()
