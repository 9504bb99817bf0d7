#!/usr/bin/env python3
"""Compares our agent, globus-compute-endpoint 4.19 and an echo agent on one broker, and writes docs/benchmarks.md.

    tests/bench/run.py [--rounds 5] [--tasks 20000]

The agents take turns, round by round, with the same tasks and two executors each. Read the ratios, not the
absolute figures: they are of one machine on one day.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import uuid
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import agents
import report
import sections
from figures import usage_of, usage_of_tree
from harness import checkout
from harness.endpoint import wait_for
from harness.interchange import Interchange
from harness.keeper import Keeper
from harness.rabbitmq import RabbitMQ

IN_FLIGHT = 2_000
PYTHON_SHARE = 8
"""The Python agent gets so many times fewer tasks, to keep the rounds of like length."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each agent (default: 5)")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of a throughput run (default: 20000)")
    parser.add_argument("--single", type=int, default=1_000, help="tasks of a one-in-flight run (default: 1000)")
    parser.add_argument("--output", type=Path, default=checkout.ROOT / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--locked", "--workspace", "--bins"], cwd=checkout.ROOT, check=True)
    with Keeper(checkout.STATE / "logs" / "bench") as keeper:
        checkout.clients("4.19.0").make(keeper)
        measured = measure(keeper, arguments)
    sections.put(arguments.output, "agent", report.write(measured, arguments))
    print(report.table(measured))
    print(f"\nwritten: {arguments.output}")
    return 0


def measure(keeper: Keeper, arguments: argparse.Namespace) -> report.Measured:
    """Every figure, in the order in which the machine is least disturbed."""
    measured = report.Measured()
    broker = RabbitMQ(keeper).start()
    broker.create_virtual_host("bench")
    interchange = Interchange(keeper, checkout.binary("interchange"), broker, virtual_host="bench").start()
    client = interchange.create_client("bench")
    body, body_task_id = make_body(keeper)

    say("starting to the first result")
    for _ in range(arguments.rounds):
        measured.start_seconds.append(start_to_first_result(keeper, interchange, client, body, body_task_id))

    say("an idle agent's memory")
    idle = agents.waypost(keeper, interchange, client, f"idle-{uuid.uuid4().hex[:4]}", blocks=0).start()
    time.sleep(5)
    measured.idle_mib = usage_of([idle.process.pid]).memory_mib
    idle.stop()

    say("starting the agents")
    running = [
        agents.start_python(keeper, interchange, client),
        agents.start_waypost(keeper, interchange, client),
        agents.start_echo(keeper, interchange),
    ]
    # From here on only agents and the broker are at work: results go to the generator alone.
    interchange.stop()
    bindings = "/api/bindings/bench/e/results/q/results"
    for binding in broker.api("GET", bindings):
        broker.api("DELETE", f"{bindings}/{binding['properties_key']}")

    for round_number in range(1, arguments.rounds + 1):
        for agent in running:
            count = arguments.tasks // (PYTHON_SHARE if agent.name == "python" else 1)
            single = arguments.single // (PYTHON_SHARE * 5 if agent.name == "python" else 1)
            say(f"round {round_number} of {arguments.rounds}: {agent.name}, {count} tasks")
            figures = agents.load(interchange, agent, body, body_task_id, count, IN_FLIGHT)
            measured.throughput[agent.name].append(figures)
            figures = agents.load(interchange, agent, body, body_task_id, max(single, 20), 1)
            measured.single[agent.name].append(figures)
    for agent in running:
        measured.loaded_mib[agent.name] = usage_of_tree(agent.process.pid).memory_mib
    return measured


def make_body(keeper: Keeper) -> tuple[Path, str]:
    """One task's wire form in a file, and the id that stands in it."""
    task_id = str(uuid.uuid4())
    python = checkout.clients("4.19.0").python
    done = subprocess.run(
        [python, Path(__file__).with_name("make_task.py"), task_id], capture_output=True, check=True, timeout=60
    )
    path = keeper.temporary_folder("bench") / "task"
    path.write_bytes(done.stdout)
    return path, task_id


def start_to_first_result(keeper: Keeper, interchange: Interchange, client, body: Path, body_task_id: str) -> float:
    """Seconds from the start of our endpoint, registered earlier, to the result of a task that waits for it."""
    endpoint = agents.waypost(keeper, interchange, client, f"start-{uuid.uuid4().hex[:6]}", blocks=0).start()
    endpoint.stop()
    wait_for(lambda: not endpoint.process.running, "the endpoint's end")
    command = [
        *(checkout.binary("waypost-bench"), "load", "--count", "1"),
        *("--task-queue", f"{endpoint.id}.tasks", "--result-key", f"{endpoint.id}.results"),
        *("--body", body, "--body-task-id", body_task_id),
    ]
    environment = {"WAYPOST_BENCH_AMQP": interchange.broker.url(interchange.virtual_host)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as waiting:
        time.sleep(0.5)
        began = time.monotonic()
        endpoint.start(wait=False)
        if waiting.wait(timeout=60) != 0:
            raise RuntimeError("the first task got no result")
        seconds = time.monotonic() - began
    endpoint.stop()
    return seconds


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
