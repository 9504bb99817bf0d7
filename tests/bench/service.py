#!/usr/bin/env python3
"""Measures the interchange on SQLite and on PostgreSQL in turns, and writes its section of docs/benchmarks.md.

    tests/bench/service.py [--rounds 3] [--tasks 5000]

Both databases write to the disk before they say that they have written. The SDK is the unmodified 4.19; results come
from an endpoint that runs nothing (`waypost-bench echo`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from harness import checkout
from harness.keeper import Keeper

PROGRAM = """\
import json, sys, time
from globus_compute_sdk import Client

endpoint, batches, singles = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def double(number):
    return 2 * number

client = Client()
function = client.register_function(double)
def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
client.run(1, endpoint_id=endpoint, function_id=function)
batch_seconds = []
for _ in range(batches):
    batch = client.create_batch()
    for number in range(128):
        batch.add(function, args=(number,))
    batch_seconds.append(timed(lambda: client.batch_run(endpoint, batch)))
single_seconds = [timed(lambda: client.run(1, endpoint_id=endpoint, function_id=function)) for _ in range(singles)]
print(json.dumps({"batch_seconds": batch_seconds, "single_seconds": single_seconds}))
"""

PAGE = """\
## The interchange

Made by `tests/bench/service.py` on {date}: {machine}. RabbitMQ, the database, the interchange and its clients share these
cores. {rounds} rounds in which the databases take turns; medians, with the spread from lowest to highest. A submit is answered
when its tasks are in the database and the broker has confirmed them. A result counts when it is in the database and confirmed
on its client's queue. Load average of the machine before the run {before:.1f}, after it {after:.1f}, on {cores} cores.

{table}
"""

ROWS = [
    ("tasks a second, SDK, 128 a call", "batch", "{:,.0f}"),
    ("calls a second, SDK, one task each", "single", "{:,.0f}"),
    ("one such call, p50 (ms)", "single_p50", "{:.1f}"),
    ("one such call, p99 (ms)", "single_p99", "{:.1f}"),
    ("CPU of the interchange a task, 128 a call (µs)", "batch_cpu", "{:,.0f}"),
    ("results a second", "results", "{:,.0f}"),
    ("CPU of the interchange a result (µs)", "result_cpu", "{:,.0f}"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each database (default: 3)")
    parser.add_argument("--tasks", type=int, default=5_000, help="tasks of the results' run, at most 5000 (default)")
    parser.add_argument("--batches", type=int, default=20, help="calls of 128 tasks (default: 20)")
    parser.add_argument("--singles", type=int, default=300, help="calls of one task (default: 300)")
    parser.add_argument("--output", type=Path, default=checkout.ROOT / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    with Keeper(checkout.STATE / "logs" / "bench-service") as keeper:
        python = checkout.tools().make(keeper).python
        if Path(sys.executable).resolve() != python.resolve() or sys.prefix != str(python.parent.parent):
            # What follows speaks AMQP.
            return subprocess.run([python, "-B", *sys.argv], check=False).returncode
        checkout.clients("4.19.0").make(keeper)
        build = [
            "cargo",
            "build",
            "--release",
            "--locked",
            "--workspace",
            "--bin",
            "interchange",
            "--bin",
            "waypost-bench",
        ]
        subprocess.run(build, cwd=checkout.ROOT, check=True)
        before = os.getloadavg()[0]
        figures = measure(keeper, arguments)
        after = os.getloadavg()[0]
    import sections

    made = table(figures)
    about = {
        "date": sections.today(),
        "machine": sections.machine(),
        "cores": os.cpu_count(),
        "before": before,
        "after": after,
    }
    sections.put(arguments.output, "service", PAGE.format(**about, rounds=arguments.rounds, table=made))
    print(made)
    print(f"\nwritten: {arguments.output}")
    return 0


def measure(keeper: Keeper, arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """The figures of every round, by database."""
    from harness.interchange import Interchange
    from harness.postgresql import PostgreSQL
    from harness.rabbitmq import RabbitMQ

    broker = RabbitMQ(keeper).start()
    postgresql = PostgreSQL(keeper, durable=True).start()
    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ("sqlite", "postgresql")}
    services = {}
    for name in figures:
        broker.create_virtual_host(name)
        options = {"database": postgresql.create_database("bench")} if name == "postgresql" else {}
        program = checkout.binary("interchange")
        services[name] = Interchange(keeper, program, broker, name=name, virtual_host=name, **options).start()
    clients = {name: services[name].create_client("bench") for name in figures}
    for number in range(1, arguments.rounds + 1):
        for name, service in services.items():
            print(f"{time.strftime('%H:%M:%S')}  round {number} of {arguments.rounds}: {name}", flush=True)
            for key, value in run(keeper, service, clients[name], arguments).items():
                figures[name][key].append(value)
    return figures


def run(keeper: Keeper, service, client, arguments: argparse.Namespace) -> dict[str, float]:
    """One round on one database."""
    from figures import usage_of
    from interchange.calls import Api, eventually, metric

    api = Api(service, client)
    registration = api.endpoint()
    endpoint = registration["endpoint_id"]

    def cpu() -> float:
        return usage_of([service.process.pid]).cpu_seconds

    def submit(batches: int, singles: int) -> dict[str, list[float]]:
        command = [checkout.clients("4.19.0").python, "-c", PROGRAM, endpoint, str(batches), str(singles)]
        environment = service.client_environment(client, keeper.temporary_folder("client"))
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=600)
        return json.loads(done.stdout)

    before = cpu()
    batches = submit(arguments.batches, 0)["batch_seconds"]
    batch_cpu = cpu() - before
    singles = sorted(submit(0, arguments.singles)["single_seconds"])

    registration = api.endpoint()
    function = api.function()
    api.submit(registration["endpoint_id"], function, arguments.tasks)
    forwarded = metric(service, "results_forwarded_total")
    info = registration["result_queue_info"]
    before = cpu()
    start = time.monotonic()
    echo = keeper.start(
        "echo",
        [
            *(checkout.binary("waypost-bench"), "echo", "--task-queue", registration["task_queue_info"]["queue"]),
            *("--result-key", info["queue_publish_kwargs"]["routing_key"]),
        ],
        environment={**os.environ, "WAYPOST_BENCH_AMQP": info["connection_url"]},
    )
    wanted = forwarded + arguments.tasks
    eventually(lambda: metric(service, "results_forwarded_total") >= wanted, "every result is forwarded", 120)
    seconds = time.monotonic() - start
    result_cpu = cpu() - before
    echo.kill()
    return {
        "batch": 128 * len(batches) / sum(batches),
        "batch_cpu": batch_cpu / (128 * len(batches)) * 1e6,
        "single": len(singles) / sum(singles),
        "single_p50": singles[len(singles) // 2] * 1e3,
        "single_p99": singles[len(singles) * 99 // 100] * 1e3,
        "results": arguments.tasks / seconds,
        "result_cpu": result_cpu / arguments.tasks * 1e6,
    }


def table(figures: dict[str, dict[str, list[float]]]) -> str:
    """The databases side by side."""
    lines = ["| | SQLite | PostgreSQL | PostgreSQL / SQLite |", "|---|---|---|---|"]
    for title, key, form in ROWS:
        values = [figures[name][key] for name in ("sqlite", "postgresql")]
        cells = [
            f"{form.format(statistics.median(v))} ({form.format(min(v))} to {form.format(max(v))})" for v in values
        ]
        ratio = statistics.median(values[1]) / statistics.median(values[0])
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {ratio:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
