"""The stages of `./test`, in their order: one table, and what each does."""

from __future__ import annotations

import concurrent.futures
import shutil
import threading
from collections.abc import Callable

from harness import browser, checkout, debian, prometheus
from harness.keeper import Keeper, ProcessError
from harness.kubernetes import cluster as kubernetes
from harness.kubernetes import images, programs
from harness.postgresql import PostgreSQL
from harness.rabbitmq import RabbitMQ
from harness.stage import Run, Stage

BROKER = ["rabbitmq-server"]
SERVICES = [*BROKER, "postgresql", "python3-venv"]

CARGO_DENY = "0.20.2"
# Advisories are left out: their database comes from a host that not every machine reaches.
CARGO_DENY_CHECKS = ["bans", "licenses", "sources"]


def formatting(run: Run) -> None:
    run.check(["cargo", "fmt", "--all", "--check"])
    run.check([checkout.tools().make(run.keeper).folder / "bin" / "ruff", "format", "--check", "."])


def lint(run: Run) -> None:
    command = ["cargo", "clippy", "--release", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]
    run.check(command, yields=True)


def python_lint(run: Run) -> None:
    run.check([checkout.tools().make(run.keeper).folder / "bin" / "ruff", "check", "."])


def deny(run: Run) -> None:
    program = shutil.which("cargo-deny")
    if program is None:
        folder = checkout.STATE / "cargo"
        program = folder / "bin" / "cargo-deny"
        if not program.exists():
            command = ["cargo", "install", "cargo-deny", "--version", CARGO_DENY, "--locked", "--root", folder]
            # It runs for seconds, and would be optimized for minutes.
            quick = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0"}
            quick["CARGO_PROFILE_RELEASE_CODEGEN_UNITS"] = "16"
            if run.command(command, quick, yields=True) != 0:
                raise ProcessError(f"cargo-deny {CARGO_DENY} could not be installed; see {run.log}")
    run.check([program, "check", *CARGO_DENY_CHECKS])


AS_BUILT = ["--workspace", "--exclude", "waypost-engine", "--exclude", "waypost-simulator"]
"""The workspace without what has a stage of its own: these packages' dependencies have the features that they have in the
programs. Of the agent alone they would have fewer, and with the simulator's tests the engine would be able to make
mistakes; either would build the programs anew, under the feet of the tests that run them."""


def rust(run: Run) -> None:
    broker = RabbitMQ(run.keeper, name="rust-rabbitmq").start(wait=False)
    database = PostgreSQL(run.keeper, name="rust-postgresql").start()
    pythons = {version: checkout.clients(version).make(run.keeper).python for version in checkout.SDK_VERSIONS}
    broker.wait_ready()
    environment = {
        "WAYPOST_TEST_AMQP": broker.create_virtual_host("cargo"),
        "WAYPOST_TEST_AMQP_MANAGEMENT": broker.management_url,
        "WAYPOST_TEST_POSTGRES": database.create_database("cargo"),
        "WAYPOST_TEST_PYTHON": str(pythons["4.19.0"]),
        "WAYPOST_TEST_PYTHON_316": str(pythons["3.16.1"]),
    }
    run.cargo_test(AS_BUILT, environment)
    broker.end()
    database.stop()


def crate(name: str) -> Callable[[Run], None]:
    """The tests of a crate that needs no service."""
    return lambda run: run.cargo_test(["-p", name])


def suite(folder: str, *sdks: str, select: str = "") -> Callable[[Run], None]:
    """A folder with pytest's tests below tests/, or those that `select` chooses (pytest's -k); once in the environment
    of each SDK that is named."""

    def run_suite(run: Run) -> None:
        for sdk in sdks or (None,):
            run.pytest(checkout.ROOT / "tests" / folder, *(["-k", select] if select else []), sdk=sdk)

    return run_suite


BYTES = "test_bytes"
"""The one of the tests of kills that is long, for it waits for the disk."""

RABBITMQ_4 = ["rabbitmq-server"]
"""What the root of a newer Debian holds."""


def newer_root(keeper: Keeper) -> debian.Root:
    """Debian 13, whose RabbitMQ is 4.0."""
    with _making_root:
        return debian.Root(checkout.STATE / "roots" / "trixie", "trixie", RABBITMQ_4).make(keeper)


_making_root = threading.Lock()


def newer_broker(queue_type: str, kinds: str, *folders: str) -> Callable[[Run], None]:
    """Folders of tests against RabbitMQ 4, with task queues of a type and these kinds of endpoint."""

    def run_suites(run: Run) -> None:
        environment = {
            "WAYPOST_TEST_BROKER_ROOT": str(newer_root(run.keeper).folder),
            "WAYPOST_INTERCHANGE_TASK_QUEUE_TYPE": queue_type,
            "WAYPOST_TEST_KINDS": kinds,
        }
        # How many bytes the agent holds does not depend on the broker, and takes long to show.
        ignored = f"--ignore={checkout.ROOT / 'tests' / 'kill' / BYTES}.py"
        tests = [checkout.ROOT / "tests" / folder for folder in folders]
        run.pytest(*tests, ignored, sdk="4.19.0", environment=environment)

    return run_suites


INTERCHANGE_KILLS = "(kills or replica)"
"""Those of the interchange's tests that wait for one that is dead to be replaced."""
INTERCHANGE_FAULTS = f"(test_faults or test_doubt or test_full_disk) and not {INTERCHANGE_KILLS}"
"""Those that wait for something else to break and to mend."""
INTERCHANGE_CLEANING = "test_housekeeping"
"""Those that wait for something to go away."""
INTERCHANGE_AT_BROKER = "test_api or test_strangers or test_credentials or test_intrusion or test_doubt or test_sign_in"
"""Those that depend on the broker's version or the database."""


def newer_interchange(run: Run) -> None:
    """What the interchange asks of a broker, asked of RabbitMQ 4; and the same calls kept in PostgreSQL."""
    environment = {
        "WAYPOST_TEST_BROKER_ROOT": str(newer_root(run.keeper).folder),
        "WAYPOST_TEST_DATABASE": "postgresql",
    }
    run.pytest(checkout.ROOT / "tests" / "interchange", "-k", INTERCHANGE_AT_BROKER, environment=environment)


def line(name: str, what: str, run: Callable[[Run], None], *packages: str, **options: object) -> Stage:
    """A stage that uses the whole line: our programs, the broker, a database and the clients."""
    return Stage(name, what, run, [*SERVICES, *packages], built=True, clients=True, **options)


CARGO = "cargo"
"""The lane of what compiles: cargo lets one at a time into the folder of its output."""

TOOLS = "tools"
"""The lane of what compiles into a folder of its own: a new machine's processors are not all busy while one long crate of
ours is compiled."""

WARM = "test_a_second_run_makes_its_picture_in_time"
"""The one test of the demo that measures."""

CLUSTER = [*kubernetes.PACKAGES, *images.PACKAGES, *([] if programs.go() else ["golang-go"])]


CLUSTER_LANES = {
    "first": ["test_line.py", "test_hostile.py", "test_scaling.py"],
    "second": ["test_start_failures.py", "test_admission.py", "test_hollow.py"],
    "third": ["test_agent.py", "test_ends.py"],
}
"""Tests that share a cluster and mostly wait: each lane with a broker, an interchange and an endpoint of its own."""
CLUSTER_ALONE = ["test_network_policies.py", "test_node.py", "test_outages.py"]
"""Those that break what all would share."""


PROVIDER = [*AS_BUILT, "--test", "kubernetes", "--test", "state"]
"""The agent's and its provider's own tests that need a cluster, and that the stage `rust` therefore leaves out."""


def provider(shared: kubernetes.Cluster, worker: images.Image, python: images.Image) -> Callable[[Run], None]:
    """Those tests, on a cluster that is up. Each has a namespace of its own."""
    for image in (worker, python):
        shared.import_image(image.archive)
    environment = {
        "KUBECONFIG": str(shared.kubeconfig),
        "WAYPOST_TEST_IMAGE": python.name,
        "WAYPOST_TEST_WORKER_IMAGE": worker.name,
    }
    return lambda run: run.cargo_test(PROVIDER, environment, ["--ignored", "--test-threads=3"])


def cluster(run: Run) -> None:
    """The tests on a real Kubernetes, which is built first, where it is not yet."""
    kubernetes.refuse_unless_possible()
    programs.build(run.keeper, [*programs.CLUSTER, programs.KUBEMARK, programs.NETWORK_POLICIES])
    # Before the tests, each of which has minutes: on a new machine this takes longer than that.
    builder = images.Builder(run.keeper)
    pause = builder.pause()
    worker, python = builder.worker(), builder.python_with_sdk()
    for image in (pause, builder.agent(), worker, python):
        with run.log.open("a") as log:
            log.write(f"{image.name}: {image.size / 1e6:.1f} MB compressed\n")
    run.command(["cargo", "test", "--release", "--locked", "--no-run", *PROVIDER], yields=True)
    tests = checkout.ROOT / "tests" / "cluster"
    run.pytest(tests / "ground")
    listed = {file for lane in (*CLUSTER_LANES.values(), CLUSTER_ALONE) for file in lane}
    if unlisted := {path.name for path in (tests / "endpoint").glob("test_*.py")} - listed:
        raise ProcessError(f"no lane of the cluster's tests has {', '.join(sorted(unlisted))}")
    shared = kubernetes.Cluster(run.keeper).start(pause.archive, patience=60)
    try:
        run.together(
            {"provider": provider(shared, worker, python)}
            | {
                name: lambda lane, files=files: lane.pytest(
                    *[tests / "endpoint" / file for file in files],
                    sdk="4.19.0",
                    environment={kubernetes.ATTACH: "yes"},
                )
                for name, files in CLUSTER_LANES.items()
            }
        )
    finally:
        shared.end()
    run.pytest(*[tests / "endpoint" / file for file in CLUSTER_ALONE], sdk="4.19.0")


def charts(run: Run) -> None:
    """The charts, as Helm renders them and on a real Kubernetes."""
    kubernetes.refuse_unless_possible()
    programs.build(run.keeper, [*programs.CLUSTER, programs.HELM_3])
    tests = checkout.ROOT / "tests" / "charts"
    run.pytest(tests, f"--ignore={tests / 'cluster'}", sdk="4.19.0")
    # Before the tests, each of which has minutes: on a new machine this takes longer than that.
    builder = images.Builder(run.keeper)
    for image in (builder.pause, builder.agent, builder.python_with_sdk, builder.worker, builder.interchange):
        image()
    run.pytest(tests / "cluster", sdk="4.19.0")


STAGES = [
    line("demo", "./demo makes its picture, in 15 s when it is warm", suite("demo", select=WARM), alone=True),
    Stage("format", "cargo fmt and ruff format change nothing", formatting, lane=CARGO),
    Stage("python-lint", "ruff finds nothing", python_lint, lane=CARGO),
    Stage("lint", "clippy finds nothing", lint, lane=CARGO),
    Stage("deny", "cargo-deny: licences, sources and refused crates", deny, lane=TOOLS),
    Stage("engine", "the endpoint's core, driven by hand", crate("waypost-engine"), lane=CARGO),
    Stage(
        "simulator", "a thousand seeds, and mistakes that the checkers catch", crate("waypost-simulator"), lane=CARGO
    ),
    line("rust", "every other cargo test, with a real broker, database and SDK", rust, lane=CARGO),
    line(
        "demo-ends",
        "./demo kept, stopped, refused and killed: it leaves nothing",
        suite("demo", select=f"not {WARM}"),
        lane=CARGO,
    ),
    line(
        "kill",
        "no task is lost or run twice, whatever dies",
        suite("kill", "4.19.0", select=f"not {BYTES}"),
        "faketime",
    ),
    line(
        "bytes", "what the agent holds is bounded: two gigabytes pass through it", suite("kill", "4.19.0", select=BYTES)
    ),
    line(
        "rabbitmq4-kill",
        "no task is lost or run twice on RabbitMQ 4 with quorum task queues",
        newer_broker("quorum", "template direct", "kill"),
        "faketime",
        "mmdebstrap",
    ),
    line(
        "rabbitmq4-quorum",
        "the whole line on RabbitMQ 4 with quorum task queues",
        newer_broker("quorum", "template direct", "end_to_end"),
        "mmdebstrap",
    ),
    line("end-to-end", "SDK 4.19 and 3.16.1 through the whole line", suite("end_to_end", *checkout.SDK_VERSIONS)),
    line(
        "rabbitmq4-classic",
        "both with classic ones, and template endpoints",
        newer_broker("classic", "template", "end_to_end", "kill"),
        "faketime",
        "mmdebstrap",
    ),
    line(
        "interchange",
        "every route, as its owner and as a stranger; users who sign in, in Chromium too; intruders at the broker; its figures",
        suite("interchange", select=f"not (test_faults or test_doubt or test_full_disk or {INTERCHANGE_CLEANING})"),
        *browser.PACKAGES,
    ),
    line(
        "interchange-faults",
        "brokers and databases that fail, disks that are full, confirms that are held back",
        suite("interchange", select=INTERCHANGE_FAULTS),
    ),
    line(
        "interchange-kills",
        "an interchange is killed at any moment, alone or one of two: nothing is lost",
        suite("interchange", select=f"test_faults and {INTERCHANGE_KILLS}"),
    ),
    line(
        "interchange-tidy",
        "what is no longer needed goes away: 2,000 task groups leave nothing",
        suite("interchange", select=INTERCHANGE_CLEANING),
    ),
    line(
        "rabbitmq4-service",
        "the interchange's calls, queues, users and confirms on RabbitMQ 4 and PostgreSQL",
        newer_interchange,
        "mmdebstrap",
    ),
    line(
        "python-endpoints",
        "globus-compute-endpoint 4.19 and 3.16.1 against our interchange",
        suite("python_endpoints", "4.19.0"),
    ),
    line(
        "worker",
        "the same tasks through globus-compute-endpoint's worker function and through ours, field by field",
        suite("worker", *checkout.SDK_VERSIONS),
    ),
    line(
        "monitoring",
        "the charts' alert rules, and their dashboards over a line that works, on a real Prometheus",
        suite("monitoring", "4.19.0"),
        *prometheus.PACKAGES,
    ),
    line(
        "secured",
        "https and AMQPS with certificates of an own authority; proxies",
        suite("secured", "4.19.0"),
    ),
    Stage("harness", "the harness itself: nothing outlives its starter", suite("keeper"), SERVICES),
    line("compatibility", "PyYAML and jinja2 say what the agent's tables say", suite("compatibility", "4.19.0")),
    line(
        "cluster",
        "on a real Kubernetes, which is built from Go modules the first time (minutes; needs root)",
        cluster,
        *CLUSTER,
        lane="cluster",
        pods=True,
        on_request=True,
    ),
    line(
        "charts",
        "the Helm charts: schema, templates, and installed on a real Kubernetes (as the stage before)",
        charts,
        *CLUSTER,
        lane="cluster",
        pods=True,
        on_request=True,
    ),
]


def build(run: Run, stages: list[Stage]) -> None:
    """The programs that the stages after it use; those on a cluster also load it with the benchmark's."""
    benchmark = ["--workspace"] if any(stage.pods for stage in stages) else []
    command = ["cargo", "build", "--release", "--bins", "--locked", *benchmark]
    if run.command(command) != 0:
        raise ProcessError(f"`{' '.join(command)}` failed; see {run.log}")


def environments(run: Run, stages: list[Stage]) -> None:
    """The Python environments that the stages use."""
    checkout.tools().make(run.keeper)
    if any(stage.clients for stage in stages):
        for version in checkout.SDK_VERSIONS:
            checkout.clients(version).make(run.keeper)


def prepare(run: Run, stages: list[Stage]) -> None:
    """Installs what the stages need; pip, which mostly waits, beside the compiler."""
    packages = sorted({package for stage in stages for package in stage.packages})
    debian.install(packages, run.log)
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        made = beside.submit(environments, run, stages)
        if any(stage.built for stage in stages):
            build(run, stages)
        if any(stage.pods for stage in stages):
            command = [*checkout.STATIC_WORKER, "--target", checkout.host_target()]
            if run.command(command) != 0:
                raise ProcessError(f"`{' '.join(command)}` failed; see {run.log}")
        made.result()
