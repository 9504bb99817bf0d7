"""A private RabbitMQ node: own folders, ports, port mapper and administrator; beside any that the system runs."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from harness import http, ports
from harness.keeper import Keeper, Process

if TYPE_CHECKING:
    from harness.certificates import Certificate

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's own start script. The one in /usr/sbin insists on root or the rabbitmq user."""

# A root has no /proc, where a node looks for its own memory and the machine's. The last is in seconds, and a minute unless
# told otherwise: five more, and the node gives up a quorum queue that has no leader.
ROOT_SETTINGS = """vm_memory_calculation_strategy = allocated
total_memory_available_override_value = 2GB
net_ticktime = 8"""


PLUGINS = {"rabbit", "rabbitmq_prelaunch", "rabbitmq_management", "systemd"}
"""What a node needs of RabbitMQ's own folder of Erlang applications, with what these name in turn."""


def _needed(applications: dict[str, Path]) -> set[str]:
    """The names of PLUGINS and of every application that they need, as their .app files say."""
    needed: set[str] = set()
    waiting = list(PLUGINS)
    while waiting:
        name = waiting.pop()
        if name in needed or name not in applications:
            continue
        needed.add(name)
        text = (applications[name] / "ebin" / f"{name}.app").read_text(errors="replace")
        for listed in re.findall(r"\{\s*(?:included_)?applications\s*,\s*\[([^\]]*)\]", text):
            waiting += re.findall(r"[a-z][a-z0-9_]*", listed)
    return needed


def _make_lean_home(home: Path, root: Path | None) -> bool:
    """Makes a home for the start script that has links to the applications that are needed, and no others: a node
    searches all of them for each of its thousand modules, which is a third of its start. False if the package is laid
    out in another way."""
    outside = Path(root or "/")
    for found in sorted((outside / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/plugins")):
        applications = {path.name.rpartition("-")[0]: path for path in found.iterdir() if path.is_dir()}
        if not set(applications) >= PLUGINS:
            continue
        shutil.rmtree(home, ignore_errors=True)
        (home / "plugins").mkdir(parents=True)
        links = [path for path in found.parent.iterdir() if path != found]
        links += [applications[name] for name in _needed(applications)]
        for path in links:
            # Followed inside the root, if there is one.
            (home / path.relative_to(found.parent)).symlink_to(Path("/") / path.relative_to(outside))
        return True
    return False


class RabbitMQ:
    """One node. `root` is a folder to chroot into, where another version is installed (needs root).

    Nothing is kept for longer than the keeper lives; a stop and a start in between keep queues and messages. `address`
    is one of this machine's on which it serves AMQP, too, and its management: pods do not reach 127.0.0.1. With a
    `certificate` for localhost clients are told to come by AMQPS, to the first of `tls_ports`.
    """

    def __init__(
        self,
        keeper: Keeper,
        name: str = "rabbitmq",
        root: Path | None = None,
        folder: Path | None = None,
        port: int | None = None,
        management_port: int | None = None,
        settings: str = "",
        address: str | None = None,
        erlang_arguments: str = "",
        certificate: Certificate | None = None,
    ):
        self.keeper = keeper
        self.name = name
        self.root = root
        self.address = address
        self.management_address = address or "127.0.0.1"
        self._erlang_arguments = erlang_arguments
        self.port = port or ports.free_port()
        self.management_port = management_port or ports.free_port()
        self.tls_ports = [ports.free_port(), ports.free_port()] if certificate else []
        self.user = "waypost-admin"
        self.password = secrets.token_urlsafe(24)
        self.process: Process | None = None
        self._mapper: Process | None = None
        self._mapper_port = ports.free_port()
        self._distribution_port = ports.free_port()
        self.folder = folder or keeper.temporary_folder(name)
        # Inside a root the node sees the folder by another path.
        if root is not None:
            self._inside = Path("/run") / self.folder.name
            outside = root / self._inside.relative_to("/")
            keeper._ask("remove_at_end", path=str(outside))
        else:
            self._inside, outside = self.folder, self.folder
        self._outside = outside
        outside.mkdir(parents=True, exist_ok=True)
        self._server = (
            f"{self._inside}/home/sbin/rabbitmq-server" if _make_lean_home(outside / "home", root) else SERVER
        )
        (outside / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (outside / "rabbitmq.conf").write_text(
            f"""listeners.tcp.1 = 127.0.0.1:{self.port}
management.tcp.ip = {self.management_address}
management.tcp.port = {self.management_port}
default_user = {self.user}
default_pass = {self.password}
default_user_tags.administrator = true
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
disk_free_limit.absolute = 200MB
log.console = true
log.console.level = info
log.file = false
{f"listeners.tcp.2 = {address}:{self.port}" if address else ""}
{ROOT_SETTINGS if root is not None else ""}
{self._tls_settings(certificate) if certificate else ""}
{settings}
"""
        )
        (outside / "rabbitmq.conf").chmod(0o600)

    def _tls_settings(self, certificate: Certificate) -> str:
        """The lines for AMQPS. The files are copied to where the node sees them."""
        for name, path in (("server.pem", certificate.certificate), ("server.key", certificate.key)):
            shutil.copy(path, self._outside / name)
        listeners = [f"listeners.ssl.{number} = 127.0.0.1:{port}" for number, port in enumerate(self.tls_ports, 1)]
        files = [
            f"ssl_options.certfile = {self._inside}/server.pem",
            f"ssl_options.keyfile = {self._inside}/server.key",
        ]
        return "\n".join([*listeners, *files])

    @staticmethod
    def installed(root: Path | None = None) -> bool:
        """Whether the package is there, on this machine or in a root."""
        return (Path(root or "/") / SERVER.lstrip("/")).exists()

    def url(self, virtual_host: str = "/") -> str:
        """AMQP address with the administrator's name and password."""
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/{quote(virtual_host, safe='')}"

    def public_url(self, virtual_host: str = "/") -> str:
        """AMQP address, without a name, as clients and pods reach it."""
        if self.tls_ports:
            return f"amqps://localhost:{self.tls_ports[0]}/{quote(virtual_host, safe='')}"
        return f"amqp://{self.address or '127.0.0.1'}:{self.port}/{quote(virtual_host, safe='')}"

    @property
    def management_url(self) -> str:
        """Address of the management plugin, with the administrator's name and password."""
        return f"http://{self.user}:{self.password}@{self.management_address}:{self.management_port}"

    def _environment(self) -> dict[str, str]:
        here = str(self._inside)
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": here,
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{here}/pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": f"{self.name}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "ERL_CRASH_DUMP_SECONDS": "0",
            # The script then replaces itself by the node, so that signals reach it.
            "RUNNING_UNDER_SYSTEMD": "true",
            # Idle schedulers sleep instead of spinning: the machine is shared.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+sbwt none +sbwtdcpu none +sbwtdio none {self._erlang_arguments}",
        }

    def _command(self, *arguments: str) -> list[str]:
        return ["chroot", str(self.root), *arguments] if self.root else list(arguments)

    def start(self, wait: bool = True) -> RabbitMQ:
        """Starts the node and waits until it serves AMQP and the management plugin answers."""
        if not self.installed(self.root):
            raise FileNotFoundError(
                f"{SERVER} is missing{f' in {self.root}' if self.root else ''}: install the package rabbitmq-server"
            )
        if self.root and os.geteuid() != 0:
            raise PermissionError(f"RabbitMQ in {self.root} is entered with chroot, which needs root")
        environment = self._environment()
        if self._mapper is None or not self._mapper.running:
            self._mapper = self.keeper.start(
                f"{self.name}-epmd",
                self._command("/usr/bin/epmd", "-port", str(self._mapper_port), "-address", "127.0.0.1"),
                environment=environment,
                stop_signal=signal.SIGKILL,
            )
            self._mapper.wait_until(lambda: ports.answers(self._mapper_port), "listening")
        self.process = self.keeper.start(
            self.name,
            self._command(self._server),
            environment=environment,
            stop_signal=signal.SIGKILL,
        )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Returns once AMQP is served and the management plugin answers."""

        def ready() -> bool:
            if not all(ports.answers(port) for port in (self.port, *self.tls_ports)):
                return False
            try:
                return http.call("GET", self._api("/api/whoami"), user=(self.user, self.password))[0] == 200
            except OSError:
                return False

        self.process.wait_until(ready, "serving AMQP", timeout=180)

    def stop(self) -> None:
        """Ends the node in order; what is durable is there again after `start`."""
        if self.process is not None and self.process.running:
            self.process.stop(grace=30)

    def kill(self) -> None:
        """Ends the node as a power cut would."""
        if self.process is not None and self.process.running:
            self.process.kill()

    def forget(self) -> None:
        """Removes all that a node which is down has kept: users, queues, messages."""
        shutil.rmtree(self._outside / "mnesia")

    def end(self) -> None:
        """Ends the node and its port mapper and removes its folder."""
        self.kill()
        if self._mapper is not None and self._mapper.running:
            self._mapper.kill()
        shutil.rmtree(self._outside, ignore_errors=True)

    def _api(self, path: str) -> str:
        return f"http://{self.management_address}:{self.management_port}{path}"

    def api(self, method: str, path: str, body: object = None) -> object:
        """A call to the management plugin, as administrator. HttpError if it answers with an error."""
        return http.fetch(method, self._api(path), body, user=(self.user, self.password))

    def version(self) -> str:
        """The node's version, such as 3.10.8."""
        return self.api("GET", "/api/overview")["rabbitmq_version"]

    def create_virtual_host(self, name: str, default_queue_type: str | None = None) -> str:
        """Makes a virtual host, where the administrator may do all, and gives its AMQP address."""
        body = {"default_queue_type": default_queue_type} if default_queue_type else {}
        self.api("PUT", f"/api/vhosts/{quote(name, safe='')}", body)
        permissions = {"configure": ".*", "write": ".*", "read": ".*"}
        self.api("PUT", f"/api/permissions/{quote(name, safe='')}/{self.user}", permissions)
        return self.url(name)

    def delete_virtual_host(self, name: str) -> None:
        """Removes a virtual host with all that is in it."""
        self.api("DELETE", f"/api/vhosts/{quote(name, safe='')}")

    def queues(self, virtual_host: str = "/") -> dict[str, dict]:
        """Every queue of a virtual host by its name. The figures of messages are some seconds old."""
        found = self.api("GET", f"/api/queues/{quote(virtual_host, safe='')}")
        return {queue["name"]: queue for queue in found}

    def users(self) -> set[str]:
        """The names of all users, the administrator left out."""
        return {user["name"] for user in self.api("GET", "/api/users")} - {self.user}
