"""A private PostgreSQL server. It refuses to run as root, so a starter who is root lends it an ordinary user."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from harness import ports
from harness.keeper import Keeper, Process


def programs() -> Path | None:
    """The folder of the newest installed server's programs."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in found), key=lambda path: int(path.parent.name), default=None)


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise LookupError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


class PostgreSQL:
    """One server with a superuser of its own, reached by password over TCP. Unless it is `durable`, it leaves the writing
    to the system, as tests may: what it has outlives its own death, and not the machine's. `address` is one of this
    machine's on which it serves, too: pods do not reach 127.0.0.1."""

    def __init__(self, keeper: Keeper, name: str = "postgresql", durable: bool = False, address: str | None = None):
        self.keeper = keeper
        self.name = name
        self.durable = durable
        self.address = address
        self.port = ports.free_port()
        self.user = "waypost"
        self.password = secrets.token_urlsafe(24)
        self.process: Process | None = None
        self._folder = keeper.temporary_folder(name)
        self._data = self._folder / "data"

    def start(self) -> PostgreSQL:
        """Makes the cluster the first time, starts the server and waits until it accepts queries."""
        folder = programs()
        if folder is None:
            raise FileNotFoundError("no PostgreSQL server is installed: install the package postgresql")
        user = _unprivileged_user()
        if not self._data.exists():
            self._data.mkdir(mode=0o700)
            secret = self._folder / "password"
            secret.touch(mode=0o600)
            secret.write_text(self.password)
            if user is not None:
                for path in (self._data, secret):
                    shutil.chown(path, user)
            command = [folder / "initdb", "-D", self._data, "-U", self.user, "-E", "UTF8", "--locale=C.UTF-8"]
            command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "--no-instructions"]
            self.keeper.run(f"{self.name}-initdb", command, user=user, directory="/")
            if self.address is not None:
                with (self._data / "pg_hba.conf").open("a") as rules:
                    rules.write("host all all all scram-sha-256\n")
        command = [folder / "postgres", "-D", self._data, "-p", str(self.port)]
        addresses = ",".join(["127.0.0.1", *([self.address] if self.address else [])])
        for setting in (f"listen_addresses={addresses}", "unix_socket_directories=", "max_connections=200"):
            command += ["-c", setting]
        command += ["-c", f"fsync={'on' if self.durable else 'off'}"]
        self.process = self.keeper.start(
            self.name, command, user=user, directory="/", stop_signal=signal.SIGQUIT, grace=3
        )
        self.process.wait_until(lambda: self._accepts(), "accepting queries")
        return self

    def _accepts(self) -> bool:
        command = [programs() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self) -> None:
        """Ends the server in order, closing what connections there are; the data stays."""
        if self.process is not None and self.process.running:
            self.process.stop(number=signal.SIGINT)

    def url(self, database: str = "postgres") -> str:
        """Address of a database with the superuser's name and password."""
        return f"postgres://{self.user}:{self.password}@{self.address or '127.0.0.1'}:{self.port}/{database}"

    def query(self, text: str, database: str = "postgres") -> list[list[str]]:
        """Runs a statement and gives its rows as text."""
        command = [programs() / "psql", "-X", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]
        command += ["-p", str(self.port), "-U", self.user, "-d", database, "-c", text]
        environment = {**os.environ, "PGPASSWORD": self.password}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"PostgreSQL refused `{text}`: {done.stderr.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines() if line]

    def create_database(self, name: str) -> str:
        """Makes an empty database and gives its address."""
        self.query(f'CREATE DATABASE "{name}"')
        return self.url(name)
