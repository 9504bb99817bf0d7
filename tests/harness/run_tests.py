"""`./test`: runs the stages, each timed, and ends with a line `N passed, N failed`."""

from __future__ import annotations

import argparse
import concurrent.futures
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import checkout, processes
from harness.keeper import Keeper
from harness.stage import Counts, Run, Stage
from harness.stages import STAGES, prepare

LANES = 4
"""How many stages without a lane of their own run at a time: they mostly wait, for a broker to start, a heartbeat, a
grace to pass, and so leave the processors to the lane that compiles."""

printing = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """What came of a stage."""

    name: str
    counts: Counts
    seconds: float


def run_stage(keeper: Keeper, name: str, work: Callable[[Run], None]) -> Outcome:
    """Runs a stage; whatever it raises is a failure of it."""
    run = Run(keeper, name)
    run.log.unlink(missing_ok=True)
    with printing:
        print(f"{name:<18} begins; its output is in {run.log}", flush=True)
    start = time.monotonic()
    try:
        work(run)
    except Exception as error:  # a stage that cannot run fails and says why
        with run.log.open("a") as log:
            traceback.print_exc(file=log)
        run.counts.failed += 1
        run.counts.failures.append(f"{type(error).__name__}: {error}")
    outcome = Outcome(name, run.counts, time.monotonic() - start)
    with printing:
        show(outcome, run.log)
    return outcome


def show(outcome: Outcome, log: Path) -> None:
    counts = outcome.counts
    verdict = f"{counts.failed} FAILED" if counts.failed else "ok"
    print(f"{outcome.name:<18} {outcome.seconds:7.1f} s   {counts.passed:5} passed   {verdict}", flush=True)
    if counts.failed:
        for failure in counts.failures:
            print(f"    {failure}")
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        print(f"    --- the end of {log} ---")
        print("\n".join(f"    {line}" for line in lines[-80:]), flush=True)


def run_stages(keeper: Keeper, stages: list[Stage]) -> list[Outcome]:
    """Runs the stages that want the machine for themselves one after another, then every lane beside the others."""
    outcomes = {stage.name: run_stage(keeper, stage.name, stage.run) for stage in stages if stage.alone}
    together = [stage for stage in stages if not stage.alone]
    names = {stage.lane for stage in together}
    lanes = {name: concurrent.futures.ThreadPoolExecutor(1 if name else LANES) for name in names}
    try:
        futures = {stage.name: lanes[stage.lane].submit(run_stage, keeper, stage.name, stage.run) for stage in together}
        outcomes |= {name: future.result() for name, future in futures.items()}
    finally:
        for lane in lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)
    return [outcomes[stage.name] for stage in stages]


def main() -> int:
    parser = argparse.ArgumentParser(prog="./test", description="Runs Waypost's tests.")
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help="stages to run; if none is named, all but those on request"
    )
    parser.add_argument("--list", action="store_true", help="name the stages and end")
    arguments = parser.parse_args()
    known = {stage.name: stage for stage in STAGES}
    if arguments.list:
        for stage in STAGES:
            print(f"{stage.name:<18} {stage.what}")
        return 0
    unknown = [name for name in arguments.stages if name not in known]
    if unknown:
        parser.error(f"no stage is called {unknown[0]}; there are {', '.join(known)}")
    stages: list[Stage] = [known[name] for name in arguments.stages] or [
        stage for stage in STAGES if not stage.on_request
    ]
    for stage in STAGES:
        if stage not in stages and not arguments.stages:
            print(f"{stage.name:<18} runs only when it is named: ./test {stage.name}", flush=True)
    processes.end_by_signals()
    start = time.monotonic()
    logs = checkout.STATE / "logs"
    with Keeper(logs, f"./test was ended; so is all that it started. Logs: {logs}") as keeper:
        outcomes = [run_stage(keeper, "prepare", lambda run: prepare(run, stages))]
        outcomes += run_stages(keeper, stages)
    print("\nstage                    s  passed  failed")
    for outcome in outcomes:
        counts = outcome.counts
        print(f"{outcome.name:<18} {outcome.seconds:7.1f}  {counts.passed:6}  {counts.failed:6}")
    passed = sum(outcome.counts.passed for outcome in outcomes)
    failed = sum(outcome.counts.failed for outcome in outcomes)
    print(f"{'in all':<18} {time.monotonic() - start:7.1f}\n")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
