"""The figures as a table, and the page that keeps them."""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from dataclasses import dataclass, field

import sections

NAMES = {"waypost": "Waypost", "python": "globus-compute-endpoint 4.19", "echo": "echo agent (the floor)"}

PAGE = """\
## The agent

Made by `tests/bench/run.py` on {date}: {machine}. RabbitMQ, the load generator and the agents share these cores.
{rounds} rounds in which the agents take turns; medians, with the spread from lowest to highest. The task doubles a
number.
Each agent has two executors. The echo agent receives, publishes with confirm and acks, and runs nothing: no agent
that acks late can be faster.

{table}
"""


@dataclass
class Measured:
    """Everything that one run of the benchmark saw."""

    throughput: dict[str, list[dict]] = field(default_factory=lambda: defaultdict(list))
    single: dict[str, list[dict]] = field(default_factory=lambda: defaultdict(list))
    loaded_mib: dict[str, float] = field(default_factory=dict)
    idle_mib: float = 0.0
    start_seconds: list[float] = field(default_factory=list)


def write(measured: Measured, arguments: argparse.Namespace) -> str:
    """The section of the page."""
    return PAGE.format(
        date=sections.today(), machine=sections.machine(), rounds=arguments.rounds, table=table(measured)
    )


def table(measured: Measured) -> str:
    """The comparison, then what only our agent was asked."""
    rows = [
        ("tasks a second", measured.throughput, lambda run: run["tasks_per_second"], "{:,.0f}"),
        ("one in flight, p50 (ms)", measured.single, lambda run: run["latency_ms"]["p50"], "{:.2f}"),
        ("one in flight, p99 (ms)", measured.single, lambda run: run["latency_ms"]["p99"], "{:.2f}"),
        ("CPU a task, workers included (µs)", measured.throughput, lambda run: run["cpu_us_per_task"], "{:,.0f}"),
    ]
    lines = [
        f"| | {' | '.join(NAMES.values())} | Waypost / Python | Waypost / echo |",
        "|---|---|---|---|---|---|",
    ]
    for title, runs, figure, form in rows:
        values = {name: [figure(run) for run in runs[name]] for name in NAMES}
        middle = {name: statistics.median(found) for name, found in values.items()}
        cells = [
            f"{form.format(middle[name])} ({form.format(min(values[name]))} to {form.format(max(values[name]))})"
            for name in NAMES
        ]
        lines.append(f"| {title} | {' | '.join(cells)} | {ratios(middle)} |")
    memory = measured.loaded_mib
    cells = [f"{memory[name]:.0f}" for name in NAMES]
    lines.append(f"| memory under load, workers included (MiB, PSS) | {' | '.join(cells)} | {ratios(memory)} |")
    started = measured.start_seconds
    spread = f"{min(started):.2f} to {max(started):.2f}"
    return "\n".join(
        [
            *lines,
            "",
            "| Waypost alone | |",
            "|---|---|",
            f"| memory of an idle agent without workers (MiB, PSS) | {measured.idle_mib:.0f} |",
            f"| start to first result (s) | {statistics.median(started):.2f} ({spread}) |",
        ]
    )


def ratios(middle: dict[str, float]) -> str:
    """Ours against each of the others, as two cells."""
    return f"{middle['waypost'] / middle['python']:.2f} | {middle['waypost'] / middle['echo']:.2f}"
