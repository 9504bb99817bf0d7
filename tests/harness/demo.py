"""`./demo`: everything that Waypost is, on one machine, by one command."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from harness import checkout, debian, environments, ports, processes
from harness.endpoint import Endpoint, engine_block
from harness.environments import PythonEnvironment
from harness.interchange import CLIENTS_PORT, LOCAL, Client, Interchange, client_settings
from harness.keeper import Keeper, end_kept, is_kept
from harness.kubernetes import addresses, programs
from harness.kubernetes import cluster as clusters
from harness.kubernetes import demo as kubernetes
from harness.kubernetes.cluster import Cluster
from harness.kubernetes.endpoint import KubernetesEndpoint
from harness.rabbitmq import RabbitMQ

STATE = checkout.ROOT / ".demo"
LOGS = STATE / "logs"
RUNNING = STATE / "running"
PICTURE = STATE / "mosaic.png"
ENVIRONMENT = STATE / "env"
MARK = f"demo:{checkout.ROOT}"
NAME = "demo"
"""The endpoint's name."""

SDK = "globus-compute-sdk==4.19.0"
PROGRAMS = ("interchange", "endpoint", "worker")

DESCRIPTION = """\
Sets up what Waypost needs, starts RabbitMQ, the interchange and an endpoint, all of them private to this checkout, and
computes a picture with the unmodified Globus Compute SDK. All that it started ends with it, unless --keep is given."""


class DemoError(Exception):
    """Something that the user can act on; the text says how."""


class Steps:
    """Tells what is being done, and how long it took."""

    def __init__(self) -> None:
        self.current = "starting"

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        self.current = what
        print(f"{what} ...", flush=True)
        start = time.monotonic()
        yield
        print(f"    done in {time.monotonic() - start:.1f} s", flush=True)


def within(path: Path) -> str:
    """The path as a user at the top of the checkout would type it."""
    return str(path.relative_to(checkout.ROOT))


def sdk() -> PythonEnvironment:
    return PythonEnvironment(STATE / "venv", [SDK])


def missing_packages(arguments: argparse.Namespace) -> list[str]:
    """What apt has to bring. A RabbitMQ and a Python that are there in another way will do."""
    wanted = [] if RabbitMQ.installed() else ["rabbitmq-server"]
    if arguments.kubernetes:
        wanted += debian.missing(kubernetes.packages())
    try:
        environments.base_python()
    except FileNotFoundError:
        wanted.append("python3-venv")
    return wanted


def announce(packages: list[str], arguments: argparse.Namespace) -> None:
    """Lists what will be installed and, on a terminal, asks."""
    plan = []
    if packages:
        plan.append(f"with apt{'' if os.geteuid() == 0 else ', by sudo'}: {' '.join(packages)} (not started by Debian)")
    if not sdk().ready:
        plan.append(f"with pip, into {within(sdk().folder)}/: {SDK}")
    if not all((checkout.target() / "release" / name).exists() for name in PROGRAMS):
        plan.append("with cargo, into target/: Waypost itself, with its dependencies (some minutes)")
    if arguments.kubernetes:
        plan += kubernetes.plan()
    if not plan:
        return
    print("This will install:")
    for line in plan:
        print(f"  - {line}")
    if packages and shutil.which("apt-get") is None:
        raise DemoError(f"apt-get is missing. Install {' and '.join(packages)} in your system's way, then start again.")
    if not arguments.yes and sys.stdin.isatty() and sys.stdout.isatty():
        answer = input("Go on? [Y/n] ")
        if answer.strip().lower() not in ("", "y", "yes"):
            raise DemoError("nothing was installed or started")


def claim(port: int, address: str = LOCAL) -> None:
    """DemoError that names who has the port, if it is taken."""
    owner = processes.listener_on(port)
    # Clients say "localhost", which may mean more than one address.
    if ports.is_free(port, address) and (owner is None or address != LOCAL):
        return
    raise DemoError(
        f"port {port} is in use by {owner or 'something that does not show itself'}. "
        f"Move the interchange to another with --port, such as `./demo --port {ports.free_port()}`"
    )


def write_environment(
    port: int, client: Client, endpoint: Endpoint | KubernetesEndpoint | None, cluster: Cluster | None
) -> None:
    """Writes the file to `source`, after which an unmodified SDK finds the interchange and the endpoint."""
    address = addresses.HOST if cluster else LOCAL
    settings = client_settings(port, client, RUNNING / "endpoint", address)
    if cluster is not None:
        settings["KUBECONFIG"] = str(cluster.kubeconfig)
    if (address, port) == (LOCAL, CLIENTS_PORT):
        settings["NO_PROXY"] = settings["no_proxy"] = "localhost,127.0.0.1"
    else:
        settings["NO_PROXY"] = settings["no_proxy"] = ""
    if endpoint is not None:
        settings["WAYPOST_ENDPOINT_ID"] = endpoint.id
        settings["WAYPOST_ENDPOINT_NAME"] = endpoint.name
    ENVIRONMENT.unlink(missing_ok=True)
    ENVIRONMENT.touch(mode=0o600)
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in settings.items()]
    ENVIRONMENT.write_text("# Source this file; the demo of this checkout wrote it, and it is good while that runs.\n")
    with ENVIRONMENT.open("a") as file:
        file.writelines(lines)


def forget() -> None:
    """Removes what only a running demo needs."""
    shutil.rmtree(RUNNING, ignore_errors=True)
    ENVIRONMENT.unlink(missing_ok=True)


def set_up(arguments: argparse.Namespace, keeper: Keeper, steps: Steps) -> RabbitMQ:
    """Installs and builds what is missing, while the broker starts."""
    packages = missing_packages(arguments)
    announce(packages, arguments)
    if packages:
        with steps.step(f"Installing {' and '.join(packages)} (log: {within(LOGS)}/apt.log)"):
            debian.install(packages, LOGS / "apt.log")
    steps.current = "starting RabbitMQ"
    # On Kubernetes it waits for the address by which pods reach it.
    broker = RabbitMQ(keeper, folder=RUNNING / "rabbitmq", address=addresses.HOST if arguments.kubernetes else None)
    if not arguments.kubernetes:
        broker.start(wait=False)
    if not sdk().ready:
        with steps.step(f"Installing the SDK into {within(sdk().folder)}"):
            sdk().make(keeper, shown=True)
    with steps.step("Building Waypost"):
        targets = [part for name in PROGRAMS for part in ("--bin", name)]
        keeper.run("cargo", ["cargo", "build", "--release", "--locked", *targets], directory=checkout.ROOT, shown=True)
        if arguments.kubernetes:
            command = [*checkout.STATIC_WORKER, "--target", checkout.host_target()]
            keeper.run("cargo", command, directory=checkout.ROOT, shown=True)
    if arguments.kubernetes and programs.missing(programs.CLUSTER):
        with steps.step(f"Building Kubernetes (log: {within(LOGS)}/kubernetes-build.log)"):
            programs.build(keeper, programs.CLUSTER)
    return broker


def start(
    arguments: argparse.Namespace, keeper: Keeper, steps: Steps, broker: RabbitMQ, cluster: Cluster | None
) -> tuple[Client, Endpoint | KubernetesEndpoint | None]:
    """Starts the services."""
    with steps.step("Starting RabbitMQ"):
        if broker.process is None:
            broker.start(wait=False)
        broker.wait_ready()
    with steps.step(f"Starting the interchange on port {arguments.port}"):
        claim(arguments.port, addresses.HOST if cluster else LOCAL)
        (RUNNING / "interchange").mkdir()
        interchange = Interchange(
            keeper,
            checkout.binary("interchange"),
            broker,
            folder=RUNNING / "interchange",
            port=arguments.port,
            address=addresses.HOST if cluster else LOCAL,
        ).start()
        client = interchange.create_client("demo")
    if arguments.without_endpoint:
        return client, None
    if cluster is not None:
        with steps.step("Building images, and deploying an endpoint"):
            return client, kubernetes.deploy(keeper, cluster, interchange, client, NAME)
    slots = max(2, min(8, len(os.sched_getaffinity(0))))
    with steps.step(f"Starting an endpoint with {slots} slots"):
        endpoint = Endpoint(
            keeper,
            checkout.binary("endpoint"),
            interchange,
            client,
            "template",
            NAME,
            python=sdk().python,
            folder=RUNNING / "endpoint",
            template=engine_block(slots=f"{{{{ slots|default({slots}) }}}}"),
        ).start()
    return client, endpoint


def refuse_unless_possible() -> None:
    """DemoError that says why, if this machine or this user can not have a cluster."""
    try:
        clusters.refuse_unless_possible()
    except PermissionError as error:
        raise DemoError(f"{error}. Run it as root: `sudo ./demo --kubernetes`") from None
    except FileNotFoundError as error:
        raise DemoError(str(error)) from None


def compute(keeper: Keeper, steps: Steps) -> None:
    """Runs the example as a user would."""
    print("Computing a picture with globus-compute-sdk", flush=True)
    steps.current = "computing the picture"
    command = f". {shlex.quote(str(ENVIRONMENT))} && exec {shlex.quote(str(sdk().python))} -B examples/mosaic.py"
    command += f" --output {shlex.quote(str(PICTURE))}"
    keeper.run("mosaic", ["sh", "-c", command], directory=checkout.ROOT, shown=True, timeout=600)


def advise(
    arguments: argparse.Namespace, endpoint: Endpoint | KubernetesEndpoint | None, cluster: Cluster | None
) -> None:
    """What to type next."""
    if endpoint is not None:
        print(f"\nThe picture: {within(PICTURE)}")
    if not arguments.keep:
        on = "--kubernetes " if cluster else ""
        print(
            "\nAll is ended. To run functions of your own:\n"
            f"    ./demo {on}--keep && . .demo/env && .demo/venv/bin/python examples/hello.py"
        )
        return
    print("\nIt goes on running. In this shell, or another at this folder:\n    . .demo/env")
    if endpoint is None:
        print("    globus-compute-endpoint configure mine && globus-compute-endpoint start mine")
    else:
        print("    .demo/venv/bin/python examples/hello.py     # or any program that uses globus_compute_sdk")
    if cluster is not None:
        kubectl = f"    {cluster.kubectl_program}"
        print(f"{kubectl} get pods --all-namespaces --watch")
        if endpoint is not None:
            command = f"/usr/local/bin/endpoint status {NAME}"
            print(f"{kubectl} exec --namespace {NAME} deployment/{NAME} -- {command}")
    elif endpoint is not None:
        print('    target/release/endpoint status "$WAYPOST_ENDPOINT_NAME"')
    print(f"    ./demo stop                                 # ends it; logs are in {within(LOGS)}/")


def run(arguments: argparse.Namespace) -> int:
    """The whole demo. Whatever happens, nothing is left unless --keep was reached."""
    if is_kept(MARK):
        print("./demo: a demo of this checkout is running already; end it with `./demo stop`", file=sys.stderr)
        return 1
    end_kept(MARK)
    forget()
    LOGS.mkdir(parents=True, exist_ok=True)
    for log in LOGS.glob("*.log"):
        log.unlink()
    RUNNING.mkdir(mode=0o700)
    steps = Steps()
    began = time.monotonic()
    handed_over = False
    epitaph = f"\n./demo was killed; what it started is ended, too. Logs: {within(LOGS)}/"
    with Keeper(LOGS, epitaph, MARK) as keeper:
        try:
            cluster = None
            if arguments.kubernetes:
                refuse_unless_possible()
            else:
                claim(arguments.port)
            broker = set_up(arguments, keeper, steps)
            if arguments.kubernetes:
                with steps.step("Starting Kubernetes"):
                    cluster = kubernetes.start_cluster(keeper)
            client, endpoint = start(arguments, keeper, steps, broker, cluster)
            write_environment(arguments.port, client, endpoint, cluster)
            if isinstance(endpoint, KubernetesEndpoint):
                with kubernetes.pods_told(endpoint):
                    compute(keeper, steps)
            elif endpoint is not None:
                compute(keeper, steps)
            if arguments.keep:
                keeper.hand_over()
                handed_over = True
        except DemoError as error:
            print(f"./demo: {error}", file=sys.stderr)
            return 1
        except (KeyboardInterrupt, SystemExit):
            print(f"\n./demo: interrupted while {steps.current}; ending what was started", file=sys.stderr)
            return 130
        except Exception as error:  # every failure is told with the place of the logs
            if not processes.look_at(keeper.pid):
                print("./demo: ended from outside", file=sys.stderr)
                return 1
            print(f"./demo: failed while {steps.current}: {error}\nThe logs are in {within(LOGS)}/", file=sys.stderr)
            return 1
        finally:
            if not handed_over:
                keeper.end()
                forget()
    print(f"Everything together took {time.monotonic() - began:.1f} s.")
    advise(arguments, endpoint, cluster)
    return 0


def stop() -> int:
    """Ends what `./demo --keep` left running, or a demo in another terminal."""
    if end_kept(MARK):
        print("The demo is ended.")
    else:
        print("No demo of this checkout is running.")
    forget()
    return 0


def interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="./demo", description=DESCRIPTION)
    parser.add_argument("command", nargs="?", choices=["run", "stop"], default="run", help="stop ends a kept demo")
    parser.add_argument("--keep", action="store_true", help="leave everything running, and write .demo/env to source")
    parser.add_argument(
        "--without-endpoint",
        action="store_true",
        help="start everything but the endpoint, for one of your own; implies --keep",
    )
    parser.add_argument(
        "--kubernetes",
        action="store_true",
        help="run the endpoint and its workers as pods of a Kubernetes that is built and started for it (needs root)",
    )
    parser.add_argument("--yes", action="store_true", help="install without asking")
    parser.add_argument(
        "--port", type=int, default=CLIENTS_PORT, help="the interchange's port; clients know %(default)s by themselves"
    )
    arguments = parser.parse_args()
    arguments.keep = arguments.keep or arguments.without_endpoint
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    return stop() if arguments.command == "stop" else run(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, subprocess.SubprocessError, TimeoutError) as error:
        sys.exit(f"./demo: {error}")
