"""The three agents that are compared: ours, the Python one from PyPI, and the echo agent."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from figures import Usage, usage_of, usage_of_tree
from harness import checkout
from harness.endpoint import Endpoint, PythonEndpoint, engine_block, wait_for
from harness.interchange import Client, Interchange
from harness.keeper import Keeper, Process

SLOTS = 2
WAKE_UP = """\
import sys
from globus_compute_sdk import Executor
with Executor(endpoint_id=sys.argv[1]) as executor:
    executor.submit(sum, (20, 22)).result(timeout=180)
"""


@dataclass(frozen=True)
class Agent:
    """A running agent, and the queue that feeds it."""

    name: str
    process: Process
    queue_id: str
    """Tasks go to `<queue_id>.tasks`, results come with the key `<queue_id>.results`."""

    def usage(self) -> Usage:
        return usage_of_tree(self.process.pid)

    def own_usage(self) -> Usage:
        """Of the agent's own process, without its workers."""
        return usage_of([self.process.pid])


def waypost(keeper: Keeper, interchange: Interchange, client: Client, name: str, blocks: int = 1) -> Endpoint:
    """Our endpoint with one block of two slots that stays, or with none."""
    python = checkout.clients("4.19.0").python
    engine = engine_block(slots=SLOTS, init_blocks=blocks, min_blocks=blocks, max_blocks=1)
    binary = checkout.binary("endpoint")
    return Endpoint(keeper, binary, interchange, client, "direct", name, python=python, engine=engine)


def start_waypost(keeper: Keeper, interchange: Interchange, client: Client) -> Agent:
    """Ours, with its workers up."""
    endpoint = waypost(keeper, interchange, client, "waypost").start()
    wake_up(interchange, client, endpoint.folder, endpoint.id)
    return Agent("waypost", endpoint.process, endpoint.id)


def start_python(keeper: Keeper, interchange: Interchange, client: Client) -> Agent:
    """globus-compute-endpoint 4.19 with its user endpoint and workers up."""
    environment = checkout.clients("4.19.0")
    # It keeps its one block from the start, as ours does; `encrypted` costs it, so it is spared that.
    template = engine_block(slots=SLOTS, init_blocks=1, min_blocks=1, max_blocks=1, more="encrypted: false")
    endpoint = PythonEndpoint(keeper, environment, interchange, client, "template", "python", template=template).start()
    wake_up(interchange, client, endpoint.folder, endpoint.id)
    user_endpoint = wait_for(lambda: user_endpoint_of(interchange, endpoint.id), "the Python user endpoint's queue")
    return Agent("python", endpoint.process, user_endpoint)


def user_endpoint_of(interchange: Interchange, endpoint_id: str) -> str | None:
    """The id of the user endpoint whose task queue is consumed. The figures of queues are some seconds old."""
    for name, queue in interchange.broker.queues(interchange.virtual_host).items():
        identifier, _, kind = name.rpartition(".")
        if kind == "tasks" and identifier != endpoint_id and queue.get("consumers") == 1:
            return identifier
    return None


def start_echo(keeper: Keeper, interchange: Interchange) -> Agent:
    """The floor: an agent that runs nothing."""
    queue_id = str(uuid.uuid4())
    host = interchange.virtual_host
    interchange.broker.api("PUT", f"/api/queues/{host}/{queue_id}.tasks", {"durable": True})
    process = keeper.start(
        "echo",
        [
            checkout.binary("waypost-bench"),
            "echo",
            "--task-queue",
            f"{queue_id}.tasks",
            "--result-key",
            f"{queue_id}.results",
        ],
        environment={"WAYPOST_BENCH_AMQP": interchange.broker.url(host)},
    )
    return Agent("echo", process, queue_id)


def wake_up(interchange: Interchange, client: Client, folder: Path, endpoint_id: str) -> None:
    """Runs one task with the SDK, so that user endpoint and workers are up."""
    python = checkout.clients("4.19.0").python
    environment = interchange.client_environment(client, folder)
    subprocess.run([python, "-c", WAKE_UP, endpoint_id], env=environment, check=True, timeout=240)


def load(interchange: Interchange, agent: Agent, body: Path, body_task_id: str, count: int, in_flight: int) -> dict:
    """Runs tasks through an agent, and gives the generator's figures with the agent's CPU time a task."""
    before = agent.usage().cpu_seconds
    command = [
        *(checkout.binary("waypost-bench"), "load"),
        *("--task-queue", f"{agent.queue_id}.tasks", "--result-key", f"{agent.queue_id}.results"),
        *("--body", body, "--body-task-id", body_task_id),
        *("--count", str(count), "--in-flight", str(in_flight)),
    ]
    address = interchange.broker.url(interchange.virtual_host)
    done = subprocess.run(
        command, env={"WAYPOST_BENCH_AMQP": address}, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode != 0:
        raise RuntimeError(f"the load on {agent.name} failed: {done.stderr}")
    figures = json.loads(done.stdout)
    # The last acks are still on their way when the last result is in.
    time.sleep(0.2)
    figures["cpu_us_per_task"] = (agent.usage().cpu_seconds - before) / count * 1e6
    return figures
