"""One run of one stage of `./test`: the commands that it runs, its log, and what they counted."""

from __future__ import annotations

import concurrent.futures
import os
import re
import xml.etree.ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import checkout
from harness.interchange import without_proxies
from harness.keeper import Keeper

PASSED = re.compile(r"^test result: \w+\. (\d+) passed;", re.MULTILINE)
ELSEWHERE = re.compile(r"ignored, run by \./test \w+$")
"""Why cargo ignores a test that needs what another stage has."""


@dataclass
class Counts:
    """Tests that passed and failed, and a line about each that failed."""

    passed: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)


class Run:
    """One run of one stage: its services end with it, its output is in one log."""

    def __init__(self, keeper: Keeper, name: str):
        self.keeper = keeper
        self.name = name
        self.counts = Counts()
        self.log = keeper.logs / f"{name}.log"

    def command(
        self,
        arguments: list[str | Path],
        environment: dict[str, str] | None = None,
        timeout: float = 1500,
        yields: bool = False,
    ) -> int:
        """Runs a command to its end, with the checkout as its folder, and gives its status. One that `yields` (a
        compiler) lets all others have the processors first: stages that run beside it wait for events, and then
        are to be quick."""
        if yields:
            arguments = ["nice", "-n", "10", *arguments]
        with self.log.open("a") as log:
            log.write(f"\n$ {' '.join(map(str, arguments))}\n")
        process = self.keeper.start(
            self.name,
            arguments,
            environment={**without_proxies(dict(os.environ)), "CARGO_TERM_COLOR": "never", **(environment or {})},
            directory=checkout.ROOT,
        )
        try:
            return process.wait(timeout)
        except TimeoutError:
            process.kill()
            self.counts.failed += 1
            self.counts.failures.append(f"{' '.join(map(str, arguments))}: still running after {timeout:.0f} s")
            return -1

    def check(self, arguments: list[str | Path], **options) -> None:
        """Runs a command that is itself one test."""
        if self.command(arguments, **options) == 0:
            self.counts.passed += 1
        else:
            self.counts.failed += 1
            self.counts.failures.append(" ".join(map(str, arguments)))

    def cargo_test(
        self, arguments: list[str], environment: dict[str, str] | None = None, options: Sequence[str] = ()
    ) -> None:
        """Runs `cargo test` and counts its tests; `options` are for the tests themselves. An ignored test counts as
        failed, unless it says that another stage runs it."""
        start = self.log.stat().st_size if self.log.exists() else 0
        command = ["cargo", "test", "--release", "--locked", "--no-fail-fast", *arguments]
        self.command([*command, "--no-run"], environment, yields=True)
        status = self.command([*command, "--", *options] if options else command, environment)
        with self.log.open(errors="replace") as log:
            log.seek(start)
            text = log.read()
        results = re.findall(r"^test (\S+) .*?\.\.\. (ok|FAILED|ignored.*)$", text, re.MULTILINE)
        wrong = [name for name, result in results if result != "ok" and not ELSEWHERE.match(result)]
        self.counts.passed += sum(int(passed) for passed in PASSED.findall(text))
        self.counts.failed += len(wrong)
        self.counts.failures += wrong
        if status != 0 and not wrong:
            self.counts.failed += 1
            self.counts.failures.append(f"{' '.join(command)} ended with status {status}")

    def pytest(
        self,
        *arguments: str | Path,
        sdk: str | None = None,
        environment: dict[str, str] | None = None,
        timeout: int = 300,
    ) -> None:
        """Runs pytest on folders and counts its tests: in the environment of a version of the SDK, or in that of the
        tools. A skipped test counts as failed."""
        report = self.keeper.logs / f"{self.name}-{self.counts.passed + self.counts.failed}.xml"
        report.unlink(missing_ok=True)
        python = (checkout.clients(sdk) if sdk else checkout.tools()).make(self.keeper).python
        command = [python, "-B", "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
        status = self.command(
            [*command, f"--timeout={timeout}", *arguments],
            {"WAYPOST_TEST_STAGE": self.name, **(environment or {})},
        )
        try:
            suites = xml.etree.ElementTree.parse(report).getroot().iter("testcase")
        except (OSError, xml.etree.ElementTree.ParseError):
            self.counts.failed += 1
            self.counts.failures.append(f"pytest ended with status {status} and left no report")
            return
        wrong = []
        for case in suites:
            if any(case.find(kind) is not None for kind in ("failure", "error", "skipped")):
                wrong.append(f"{case.get('classname')}::{case.get('name')}")
            else:
                self.counts.passed += 1
        self.counts.failed += len(wrong)
        self.counts.failures += wrong
        if status != 0 and not wrong:
            self.counts.failed += 1
            self.counts.failures.append(f"pytest ended with status {status}")

    def together(self, lanes: dict[str, Callable[[Run], None]]) -> None:
        """Runs parts of the stage beside each other, each with a log of its own."""
        runs = {name: Run(self.keeper, f"{self.name}-{name}") for name in lanes}
        for each in runs.values():
            each.log.unlink(missing_ok=True)
        with concurrent.futures.ThreadPoolExecutor(len(lanes)) as threads:
            futures = [threads.submit(work, runs[name]) for name, work in lanes.items()]
        for each in runs.values():
            self.counts.passed += each.counts.passed
            self.counts.failed += each.counts.failed
            self.counts.failures += each.counts.failures
            with self.log.open("a") as log:
                log.write(f"\nSee {each.log}:\n")
                if each.counts.failed:
                    log.write("\n".join(each.log.read_text(errors="replace").splitlines()[-60:]) + "\n")
        for future in futures:
            future.result()


@dataclass(frozen=True)
class Stage:
    name: str
    what: str
    run: Callable[[Run], None]
    packages: list[str] = field(default_factory=list)
    built: bool = False
    """Whether it uses the programs of the release build."""
    pods: bool = False
    """Whether it uses the worker as it goes into pods."""
    clients: bool = False
    """Whether it uses the environments of the Python clients."""
    alone: bool = False
    """Whether it wants the machine for itself, because it measures."""
    on_request: bool = False
    """Whether it runs only when it is named, because it takes long and much of the machine."""
    lane: str | None = None
    """Stages of one lane run one after another, beside the other lanes: they use something of which there is one.
    Those without a lane mostly wait, and run some at a time."""
