"""Where things are in a checkout, and what is built there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness.environments import PythonEnvironment

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

STATE = Path(os.environ.get("WAYPOST_TEST_STATE", ROOT / ".test"))
"""What the tests keep from one run to the next: environments, roots, logs. Ignored by git."""

SDK_VERSIONS = ("4.19.0", "3.16.1")
"""The versions of globus-compute-sdk and globus-compute-endpoint that everything is tried with."""

KINDS = os.environ.get("WAYPOST_TEST_KINDS", "template direct").split()
"""The kinds of endpoint that suites run with."""

PYTEST = ("pytest==8.4.2", "pytest-timeout==2.4.0")


def target() -> Path:
    """Where cargo builds."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def binary(name: str) -> Path:
    """A program of ours, from the release build. FileNotFoundError says how to build it."""
    path = target() / "release" / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not built: run `cargo build --release --workspace --bin {name}`")
    return path


def host_target() -> str:
    """What rustc calls this machine."""
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return next(line.removeprefix("host: ") for line in said.splitlines() if line.startswith("host: "))


def static_worker() -> Path:
    """The worker as it goes into pods: linked statically, since it runs in images of every kind. FileNotFoundError says
    how to build it."""
    path = target() / host_target() / "release" / "worker"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not built: run `{' '.join(STATIC_WORKER)} --target {host_target()}`")
    return path


STATIC_WORKER = [
    *("env", "RUSTFLAGS=-C target-feature=+crt-static"),
    *("cargo", "build", "--release", "--locked", "--bin", "worker"),
]
"""How that is built; `--target` with this machine's own name keeps the flags from what runs while it is built."""


def clients(version: str) -> PythonEnvironment:
    """The environment with globus-compute-sdk and globus-compute-endpoint of a version, and pytest for tests that
    are programs of the SDK themselves."""
    packages = [f"globus-compute-sdk=={version}", f"globus-compute-endpoint=={version}", *PYTEST]
    return PythonEnvironment(STATE / "environments" / f"globus-compute-{version}", packages)


def tools() -> PythonEnvironment:
    """The environment with pytest and ruff."""
    packages = [*PYTEST, "ruff==0.14.3", "pika==1.3.2", "msgpack==1.1.2"]
    return PythonEnvironment(STATE / "environments" / "tools", packages)
