"""Endpoints under test: ours, and the Python one from PyPI, with one face."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from harness import http
from harness.environments import PythonEnvironment
from harness.interchange import Client, Interchange
from harness.keeper import Keeper, Process, ProcessError

ENGINE = """\
engine:
  type: GlobusComputeEngine
  max_workers_per_node: {slots}
  {more}
  provider:
    type: LocalProvider
    init_blocks: {init_blocks}
    min_blocks: {min_blocks}
    max_blocks: {max_blocks}
    worker_init: {worker_init}
"""


def engine_block(
    slots: str | int = 2,
    init_blocks: str | int = 1,
    min_blocks: str | int = 0,
    max_blocks: str | int = 1,
    worker_init: str = '""',
    more: str = "",
) -> str:
    """An `engine:` block on the local provider; `more` is further options of the engine, one per line."""
    indented = "\n  ".join(more.splitlines())
    values = {"slots": slots, "init_blocks": init_blocks, "min_blocks": min_blocks, "max_blocks": max_blocks}
    return ENGINE.format(**values, worker_init=worker_init, more=indented)


TEMPLATE = (
    engine_block(
        slots="{{ slots|default(2) }}",
        max_blocks="{{ max_blocks|default(1) }}",
        worker_init='{{ worker_init|default("") }}',
    )
    + "idle_heartbeats_soft: {{ idle_heartbeats_soft|default(0) }}\n"
    + "heartbeat_period: {{ heartbeat_period|default(30) }}\n"
)
"""A template that needs no network."""

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "slots": {"type": "integer", "minimum": 1},
        "max_blocks": {"type": "integer", "minimum": 1},
        "worker_init": {"type": "string"},
    },
    "additionalProperties": True,
}


class EndpointUnderTest:
    """An endpoint of one kind, "template" or "direct", that runs `command`."""

    def __init__(
        self,
        keeper: Keeper,
        command: list[str | Path],
        interchange: Interchange,
        client: Client,
        kind: str,
        name: str,
        python: Path,
        configuration: str = "",
        template: str = TEMPLATE,
        engine: str | None = None,
        prefix: list[str] | None = None,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
    ):
        if kind not in ("template", "direct"):
            raise ValueError(f"an endpoint is of the kind template or direct, not {kind}")
        self.keeper = keeper
        self.command = command
        self.interchange = interchange
        self.kind = kind
        self.name = name
        self.folder = folder or keeper.temporary_folder(name)
        self.environment = interchange.client_environment(client, self.folder)
        # Workers take the first python3 of the path.
        self.environment["PATH"] = f"{python.parent}:{self.environment['PATH']}"
        self.environment.update(environment or {})
        self.process: Process | None = None
        self.prefix = prefix or []
        """Goes before the command when it is started."""
        self._configuration = configuration
        self._template = template
        self._engine = engine or engine_block()

    @property
    def own_folder(self) -> Path:
        return self.folder / self.name

    @property
    def id(self) -> str:
        """The id that the interchange gave it at its first start."""
        return json.loads((self.own_folder / "endpoint.json").read_text())["endpoint_id"]

    def run(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess:
        """Runs one of its commands to the end. RuntimeError if it fails and `check` is set."""
        command = [*map(str, self.command), *arguments]
        done = subprocess.run(
            command,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
        )
        if check and done.returncode != 0:
            raise RuntimeError(
                f"`{' '.join(command)}` ended with status {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done

    def configure(self) -> EndpointUnderTest:
        """Makes its folder, and puts the configuration of its kind there."""
        self.run("configure", self.name)
        folder = self.own_folder
        if self.kind == "direct":
            for name in ("user_config_template.yaml.j2", "user_config_schema.json"):
                (folder / name).unlink(missing_ok=True)
            (folder / "config.yaml").write_text(f"display_name: null\n{self._configuration}{self._engine}")
        else:
            (folder / "config.yaml").write_text(f"display_name: null\n{self._configuration}")
            (folder / "user_config_template.yaml.j2").write_text(self._template)
            (folder / "user_config_schema.json").write_text(json.dumps(SCHEMA))
        return self

    def start(self, wait: bool = True) -> EndpointUnderTest:
        """Starts it and waits until the interchange says that it is online."""
        if not self.own_folder.exists():
            self.configure()
        self.process = self.keeper.start(
            self.name,
            [*self.prefix, *self.command, "start", self.name],
            environment=self.environment,
            directory=self.folder,
            grace=10,
        )
        if wait:
            self.wait_online()
        return self

    def wait_online(self, timeout: float = 60) -> None:
        """Returns once the interchange calls it online."""
        self.process.wait_until(lambda: self.service_status() == "online", "online", timeout)

    def service_status(self) -> str:
        """What the interchange says of it: online, offline, or unknown before it is registered."""
        try:
            path = f"{self.interchange.url}/v2/endpoints/{self.id}/status"
        except (OSError, ValueError, KeyError):
            return "unknown"
        try:
            answer = http.fetch("GET", path, headers={"Authorization": f"Bearer {self._token()}"})
        except (OSError, http.HttpError):
            return "unknown"
        return answer.get("status", "unknown")

    def task(self, identity: str) -> dict:
        """What the interchange says of a task."""
        path = f"{self.interchange.url}/v2/tasks/{identity}"
        return http.fetch("GET", path, headers={"Authorization": f"Bearer {self._token()}"})

    def _token(self) -> str:
        if not hasattr(self, "_access_token"):
            self._access_token = access_token(
                self.interchange,
                Client(self.environment["GLOBUS_COMPUTE_CLIENT_ID"], self.environment["GLOBUS_COMPUTE_CLIENT_SECRET"]),
            )
        return self._access_token

    def kill(self) -> None:
        """SIGKILL to its own process alone: what it started lives on."""
        self.process.kill(tree=False)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        return self.process.stop(grace=30, number=signal.SIGTERM)


class Endpoint(EndpointUnderTest):
    """Ours."""

    def __init__(self, keeper: Keeper, binary: Path, *arguments: object, **options: object):
        super().__init__(keeper, [binary], *arguments, **options)

    def status(self) -> dict:
        """What `endpoint status --json` prints."""
        return json.loads(self.run("status", self.name, "--json").stdout)


class PythonEndpoint(EndpointUnderTest):
    """globus-compute-endpoint from PyPI. A starter who is root runs it as nobody, since as root it would ask for an
    identity mapping: in a user namespace, so that it may use the folders that are there."""

    def __init__(self, keeper: Keeper, python: PythonEnvironment, *arguments: object, **options: object):
        lower = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
        program = python.folder / "bin" / "globus-compute-endpoint"
        if "globus-compute-3." in str(python.folder):
            # This version becomes a daemon unless it is told not to.
            options["configuration"] = f"detach_endpoint: false\n{options.get('configuration', '')}"
        super().__init__(keeper, [*lower, program], *arguments, python=python.python, **options)


def access_token(interchange: Interchange, client: Client) -> str:
    """A bearer token for the web service."""
    scope = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
    request = urllib.request.Request(
        f"{interchange.url}/v2/oauth2/token", f"grant_type=client_credentials&scope={scope}".encode()
    )
    pair = base64.b64encode(f"{client.id}:{client.secret}".encode()).decode()
    request.add_header("Authorization", f"Basic {pair}")
    request.add_header("Content-Type", "application/x-www-form-urlencoded")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.loads(answer.read())["access_token"]


def wait_for(condition, what: str, timeout: float = 60.0, interval: float = 0.05):
    """Polls until `condition` gives something true, and gives that. ProcessError names `what` did not come."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > end:
            raise ProcessError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(interval)
    return found
