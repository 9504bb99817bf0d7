"""Python environments with packages from PyPI, each made once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.keeper import Keeper

_PROBE = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))"


def base_python() -> str:
    """The interpreter that environments are made from: Debian's own if it will do, since every user may run it."""
    for candidate in ("/usr/bin/python3", sys.executable):
        if os.path.exists(candidate) and subprocess.run([candidate, "-c", _PROBE], capture_output=True).returncode == 0:
            return candidate
    raise FileNotFoundError(
        "no Python 3.10 or later with the module venv was found (Debian: apt-get install python3-venv)"
    )


class PythonEnvironment:
    """A virtual environment in `folder` that holds exactly what `requirements` ask for."""

    def __init__(self, folder: Path, requirements: list[str]):
        self.folder = Path(folder)
        self.requirements = requirements

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def _mark(self) -> Path:
        return self.folder / "complete"

    @property
    def _wanted(self) -> str:
        return hashlib.sha256("\n".join([str(self.folder), *self.requirements]).encode()).hexdigest()

    @property
    def ready(self) -> bool:
        """Whether it was made, to its end, for these requirements, and its interpreter is still there."""
        return self.python.exists() and self._mark.exists() and self._mark.read_text() == self._wanted

    def make(self, keeper: Keeper, shown: bool = False) -> PythonEnvironment:
        """Makes it unless it is there. With `shown` pip's output goes where ours goes."""
        if self.ready:
            return self
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        name = f"pip-{self.folder.name}"
        keeper.run(name, [base_python(), "-m", "venv", self.folder], shown=shown)
        command = [self.python, "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off"]
        keeper.run(name, [*command, *([] if shown else ["--quiet"]), *self.requirements], shown=shown)
        self._mark.write_text(self._wanted)
        return self
