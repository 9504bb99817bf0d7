"""A private interchange, and the environments with which unmodified clients use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import http, ports
from harness.keeper import Keeper, Process
from harness.rabbitmq import RabbitMQ

CLIENTS_PORT = 5000
"""The port that Globus Compute's clients fix for a local service."""


@dataclass(frozen=True)
class Client:
    """Client credentials that the interchange gave out."""

    id: str
    secret: str


@dataclass(frozen=True)
class User:
    """Somebody who can sign in. The id is the identity."""

    id: str
    name: str
    password: str


def without_proxies(environment: dict[str, str]) -> dict[str, str]:
    """The environment with every proxy setting removed."""
    return {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}


LOCAL = "127.0.0.1"


def client_settings(port: int, client: Client, folder: Path, address: str = LOCAL) -> dict[str, str]:
    """What unmodified SDKs and endpoints need in their environment to use the interchange on this port.

    The clients know a local service by http://localhost:5000 only. Elsewhere the interchange is named as their
    HTTP proxy as well: it accepts requests for that address as a proxy would.
    """
    settings = {
        "GLOBUS_SDK_ENVIRONMENT": "local",
        "GLOBUS_SDK_SERVICE_URL_AUTH": f"http://localhost:{CLIENTS_PORT}/",
        "GLOBUS_COMPUTE_CLIENT_ID": client.id,
        "GLOBUS_COMPUTE_CLIENT_SECRET": client.secret,
        "GLOBUS_COMPUTE_USER_DIR": str(folder),
    }
    if (address, port) != (LOCAL, CLIENTS_PORT):
        settings["HTTP_PROXY"] = settings["http_proxy"] = f"http://{address}:{port}"
    return settings


class Interchange:
    """One `interchange serve`. Its folder holds the SQLite file (unless `database` names another) and its key."""

    def __init__(
        self,
        keeper: Keeper,
        binary: Path,
        broker: RabbitMQ,
        name: str = "interchange",
        folder: Path | None = None,
        port: int | None = None,
        database: str | None = None,
        virtual_host: str = "/",
        environment: dict[str, str] | None = None,
        address: str = LOCAL,
    ):
        self.keeper = keeper
        self.address = address
        self.binary = Path(binary)
        self.broker = broker
        self.name = name
        self.folder = folder or keeper.temporary_folder(name)
        self.port = port or ports.free_port()
        self.database = database or f"sqlite://{self.folder}/interchange.db"
        self.virtual_host = virtual_host
        self.environment = environment or {}
        self.process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def _environment(self) -> dict[str, str]:
        # Addresses with passwords go by environment: a command line is for every user to read.
        return {
            **without_proxies(dict(os.environ)),
            "WAYPOST_INTERCHANGE_DATABASE": self.database,
            "WAYPOST_INTERCHANGE_BROKER_URL": self.broker.url(self.virtual_host),
            "WAYPOST_INTERCHANGE_BROKER_MANAGEMENT_URL": self.broker.management_url,
            "WAYPOST_INTERCHANGE_KEY_FILE": str(self.folder / "interchange.key"),
            "WAYPOST_INTERCHANGE_BROKER_PUBLIC_URL": self.broker.public_url(self.virtual_host),
            "WAYPOST_INTERCHANGE_LISTEN": f"{self.address}:{self.port}",
            **self.environment,
        }

    def start(self, wait: bool = True) -> Interchange:
        """Starts it and waits until it says that it is ready."""
        self.process = self.keeper.start(
            self.name, [self.binary, "serve"], environment=self._environment(), directory=self.folder
        )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Returns once /readyz is answered with 200."""
        self.process.wait_until(lambda: http.answers_with(f"{self.url}/readyz"), "ready")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        return self.process.stop(number=signal.SIGTERM)

    def create_client(self, name: str = "tests") -> Client:
        """New client credentials."""
        made = json.loads(self.command("client", "create", "--name", name, "--json"))
        return Client(made["client_id"], made["client_secret"])

    def command(self, *arguments: str, text: str | None = None) -> str:
        """What `interchange` with these arguments prints; `text` is its standard input."""
        command = [self.binary, *arguments]
        done = subprocess.run(
            command, env=self._environment(), check=False, capture_output=True, text=True, timeout=60, input=text or ""
        )
        if done.returncode != 0:
            shown = " ".join(["interchange", *arguments])
            raise RuntimeError(f"`{shown}` ended with status {done.returncode}: {done.stderr}")
        return done.stdout

    def create_user(self, name: str, password: str) -> User:
        """A new user, who can sign in."""
        made = json.loads(self.command("user", "add", name, "--json", text=f"{password}\n"))
        return User(made["id"], made["name"], password)

    def user_environment(self, folder: Path) -> dict[str, str]:
        """As `client_environment`, for a program whose user signs in."""
        environment = self.client_environment(Client("", ""), folder)
        for name in ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"):
            del environment[name]
        return environment

    def client_environment(self, client: Client, folder: Path) -> dict[str, str]:
        """A whole environment for a program that uses an unmodified SDK or endpoint. `folder` becomes its
        GLOBUS_COMPUTE_USER_DIR and home."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM", "TZ") if name in os.environ}
        return {**kept, "HOME": str(folder), **client_settings(self.port, client, folder, self.address)}
