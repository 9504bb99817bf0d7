"""Logging in at a terminal, as a person would."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

from harness import checkout
from harness.interchange import Interchange, User
from harness.sign_in import code_for

_WAIT = 120
_ADDRESS = re.compile(r"^-+\r?\n(http\S+)\r?\n-+\r?$", re.MULTILINE)


class Program:
    """A command line with which a user of an interchange logs in; `folder` is where it keeps that."""

    def __init__(self, command: Path, service: Interchange, folder: Path):
        self.command = command
        self.service = service
        self.folder = folder
        self.environment = service.user_environment(folder)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Runs a command to its end, without a terminal."""
        done = subprocess.run(
            [self.command, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WAIT,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def login(self, user: User, *arguments: str) -> tuple[int, str]:
        """Logs a user in at a terminal; the exit status, and all that was shown."""
        return self.at_terminal(user, "login", *arguments)

    def at_terminal(self, user: User, *arguments: str) -> tuple[int, str]:
        """Runs a command at a terminal that has a user log in; the exit status, and all that was shown."""
        terminal, end = os.openpty()
        process = subprocess.Popen(
            [self.command, *arguments],
            env=self.environment,
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
        )
        os.close(end)
        try:
            shown = _read_until(terminal, lambda text: "Authorization Code here: " in text)
            code = code_for(self.service.url, address_shown(shown), user.name, user.password)
            os.write(terminal, f"{code}\n".encode())
            shown += _read_until(terminal, lambda text: False)
            return process.wait(_WAIT), shown
        finally:
            process.kill()
            process.wait()
            os.close(terminal)

    def run_python(self, python: Path, code: str, *arguments: str) -> str:
        """What a program of the SDK prints that runs on the login."""
        done = subprocess.run(
            [python, "-B", "-c", code, *arguments],
            env={**self.environment, "PYTHONPATH": str(checkout.ROOT / "tests")},
            capture_output=True,
            text=True,
            timeout=2 * _WAIT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stored(self) -> dict[str, dict]:
        """The tokens by their resource servers."""
        return _read_storage(self.folder / "storage.db")


def address_shown(text: str) -> str:
    """The address that a program asks its user to open."""
    return _ADDRESS.search(text)[1]


def _read_until(terminal: int, done: Callable[[str], bool]) -> str:
    """What comes from a terminal until it is enough, or its other end is closed."""
    text = ""
    while not done(text):
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        text += part.decode()
    return text


def _read_storage(path: Path) -> dict[str, dict]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT namespace, resource_server, token_data_json FROM token_storage").fetchall()
    finally:
        connection.close()
    assert {namespace for namespace, _, _ in rows} <= {"user/local"}
    return {resource_server: json.loads(data) for _, resource_server, data in rows}


def secrets_of(stored: dict[str, dict]) -> set[str]:
    """All tokens among these."""
    return {data[name] for data in stored.values() for name in ("access_token", "refresh_token")}


def as_version_1(python: Path, folder: Path) -> None:
    """Makes the storage one of the SDK before version 4: by its own class, and with nobody's identity in it."""
    program = """
import json, os, sqlite3, sys
from globus_sdk.token_storage.legacy import SQLiteAdapter
path = sys.argv[1]
rows = sqlite3.connect(path).execute("SELECT namespace, resource_server, token_data_json FROM token_storage").fetchall()
os.unlink(path)
adapter = SQLiteAdapter(path, namespace="user/local")
for namespace, server, data in rows:
    data = {name: value for name, value in json.loads(data).items() if name != "identity_id"}
    adapter._connection.execute("REPLACE INTO token_storage VALUES (?, ?, ?)", (namespace, server, json.dumps(data)))
adapter._connection.commit()
adapter.close()
"""
    subprocess.run([python, "-B", "-c", program, folder / "storage.db"], check=True, timeout=_WAIT)
