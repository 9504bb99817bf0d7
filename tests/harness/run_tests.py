"""`./test`: runs the stages, each timed, and ends with a line `N passed, N failed`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback

from harness import checkout
from harness.keeper import Keeper
from harness.stages import STAGES, Counts, Run, Stage, prepare


def interrupted(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def run_stage(keeper: Keeper, name: str, work) -> tuple[Counts, float]:
    """Runs a stage; whatever it raises is a failure of it."""
    print(f"{name:<18} ", end="", flush=True)
    run = Run(keeper, name)
    run.log.unlink(missing_ok=True)
    start = time.monotonic()
    try:
        work(run)
    except Exception as error:  # a stage that cannot run fails and says why
        with run.log.open("a") as log:
            traceback.print_exc(file=log)
        run.counts.failed += 1
        run.counts.failures.append(f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - start
    counts = run.counts
    verdict = f"{counts.failed} FAILED" if counts.failed else "ok"
    print(f"{seconds:7.1f} s   {counts.passed:5} passed   {verdict}", flush=True)
    if counts.failed:
        for failure in counts.failures:
            print(f"    {failure}")
        lines = run.log.read_text(errors="replace").splitlines() if run.log.exists() else []
        print(f"    --- the end of {run.log.relative_to(checkout.ROOT) if lines else run.log} ---")
        print("\n".join(f"    {line}" for line in lines[-80:]), flush=True)
    return counts, seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="./test", description="Runs Waypost's tests.")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="stages to run; all if none is named")
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
    stages: list[Stage] = [known[name] for name in arguments.stages] or STAGES
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    start = time.monotonic()
    table: list[tuple[str, Counts, float]] = []
    logs = checkout.STATE / "logs"
    with Keeper(logs, f"./test was ended; so is all that it started. Logs: {logs}") as keeper:
        counts, seconds = run_stage(keeper, "prepare", lambda run: prepare(run, stages))
        table.append(("prepare", counts, seconds))
        for stage in stages:
            table.append((stage.name, *run_stage(keeper, stage.name, stage.run)))
    print("\nstage                    s  passed  failed")
    for name, counts, seconds in table:
        print(f"{name:<18} {seconds:7.1f}  {counts.passed:6}  {counts.failed:6}")
    passed = sum(counts.passed for _, counts, _ in table)
    failed = sum(counts.failed for _, counts, _ in table)
    print(f"{'in all':<18} {time.monotonic() - start:7.1f}\n")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
