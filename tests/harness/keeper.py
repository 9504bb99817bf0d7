"""The starter's side of the keeper: start processes, signal them, wait for them, and be sure of their end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness import processes
from harness.keeper_process import KEEPER_OF, MARK

HANDED_OVER = "it was handed over"


class KeeperError(Exception):
    """The keeper could not do what was asked, or is gone."""


class ProcessError(Exception):
    """A process ended before it did what it was started for."""


class Process:
    """A process under the keeper. Its output is in `log`, or went to the starter's own output if that is None."""

    def __init__(self, keeper: Keeper, name: str, pid: int, log: Path | None, log_start: int = 0):
        self._keeper = keeper
        self.name = name
        self.pid = pid
        self.log = log
        self._log_start = log_start
        self.status: int | None = None
        """Exit code, or the negative number of the signal that ended it; None while it runs."""

    @property
    def running(self) -> bool:
        return self.status is None

    def send_signal(self, number: int, tree: bool = False) -> None:
        """Sends a signal to the process or, with `tree`, to all its descendants as well."""
        if self.running:
            self._keeper._ask("signal", pid=self.pid, signal=int(number), tree=tree)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once there is one. TimeoutError after `timeout` seconds."""
        with self._keeper._changed:
            done = self._keeper._changed.wait_for(
                lambda: self.status is not None or self._keeper._gone is not None, timeout
            )
        if not done:
            raise TimeoutError(f"{self.name} (process {self.pid}) still runs after {timeout} s")
        if self.status is None:
            raise KeeperError(f"the keeper ended before {self.name}: {self._keeper._gone}")
        return self.status

    def stop(self, grace: float = 10.0, number: int = signal.SIGTERM) -> int:
        """Asks the process to end, and kills it and what is left below it if it has not after `grace` seconds."""
        self.send_signal(number)
        try:
            return self.wait(grace)
        except TimeoutError:
            return self.kill()

    def kill(self, tree: bool = True) -> int:
        """SIGKILL, to all below it as well unless `tree` is false, and the exit status."""
        self.send_signal(signal.SIGKILL, tree=tree)
        return self.wait(60)

    def said(self) -> str:
        """What it has written so far, without what is in the log of those that had its name before it."""
        if self.log is None or not self.log.exists():
            return ""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def tail(self, lines: int = 20) -> str:
        """The last lines that it wrote."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def ending(self) -> str:
        """A sentence that shows where the log is, and how it ends."""
        return f"Its log is {self.log}; it ends:\n{self.tail()}" if self.log else ""

    def wait_until(self, ready: Callable[[], object], what: str, timeout: float = 60.0) -> None:
        """Polls until `ready` gives something true. ProcessError, with the log's end, if the process ends first."""
        end = time.monotonic() + timeout
        while not ready():
            if not self.running:
                raise ProcessError(f"{self.name} ended with status {self.status} before it was {what}. {self.ending()}")
            if time.monotonic() > end:
                raise ProcessError(f"{self.name} was not {what} after {timeout:.0f} s. {self.ending()}")
            time.sleep(0.02)


class Keeper:
    """Starts processes that end with this one, whatever ends it (see keeper_process.py).

    `epitaph` is printed by the keeper if this process goes away without a word. `logs` is where the output goes.
    `mark` is a name by which `end_kept` finds the keeper later.
    """

    def __init__(self, logs: Path, epitaph: str = "", mark: str | None = None):
        self.logs = Path(logs)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.mark = mark or uuid.uuid4().hex
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict] = {}
        self._processes: dict[int, Process] = {}
        self._early: dict[int, int] = {}
        self._gone: str | None = None
        # If the keeper itself is killed, what it kept becomes ours, and the reader below ends it.
        processes.become_subreaper()
        ours, theirs = socket.socketpair()
        self._channel = ours
        code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from harness.keeper_process import main; main()"
        tests = str(Path(__file__).resolve().parent.parent)
        self._keeper = subprocess.Popen(
            [sys.executable, "-B", "-c", code, tests, str(theirs.fileno()), self.mark, epitaph],
            pass_fds=[theirs.fileno()],
            env={**os.environ, KEEPER_OF: self.mark},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._reader = threading.Thread(target=self._read, name="keeper-reader", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the keeper itself."""
        return self._keeper.pid

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                data = self._channel.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            with self._changed:
                for line in lines:
                    message = json.loads(line)
                    if "exited" in message:
                        process = self._processes.get(message["exited"])
                        if process is None or process.status is not None:
                            self._early[message["exited"]] = message["status"]
                        else:
                            process.status = message["status"]
                    else:
                        self._answers[message["id"]] = message
                self._changed.notify_all()
        with self._changed:
            expected = self._gone is not None
            self._gone = self._gone or "it was killed"
            self._changed.notify_all()
        if not expected:
            self._end_orphans()

    def _end_orphans(self) -> None:
        """The keeper was killed: what it kept is below us now, and carries its mark."""
        end = time.monotonic() + 10
        while (left := processes.with_environment(MARK, self.mark)) and time.monotonic() < end:
            for seen in left:
                processes.kill(seen.pid)
            time.sleep(0.02)

    def _ask(self, do: str, **request: object) -> dict:
        number = next(self._numbers)
        line = json.dumps({"id": number, "do": do, **request}).encode() + b"\n"
        with self._changed:
            if self._gone is not None:
                raise KeeperError(f"the keeper is gone: {self._gone}")
            self._channel.sendall(line)
            self._changed.wait_for(lambda: number in self._answers or self._gone is not None)
            answer = self._answers.pop(number, None)
        if answer is None:
            raise KeeperError(f"the keeper is gone: {self._gone}")
        if "error" in answer:
            raise KeeperError(f"could not {do.replace('_', ' ')}: {answer['error']}")
        return answer

    def start(
        self,
        name: str,
        arguments: Sequence[str | os.PathLike],
        environment: Mapping[str, str] | None = None,
        directory: str | os.PathLike | None = None,
        user: str | None = None,
        stop_signal: int = signal.SIGTERM,
        grace: float = 5.0,
        shown: bool = False,
    ) -> Process:
        """Starts a process in a session of its own. `environment` replaces ours. With `shown` its output is not
        logged but goes where ours goes. At the end it is sent `stop_signal` and has `grace` seconds."""
        log = None if shown else self.logs / f"{name}.log"
        log_start = log.stat().st_size if log and log.exists() else 0
        answer = self._ask(
            "start",
            name=name,
            arguments=[os.fspath(argument) for argument in arguments],
            environment=dict(os.environ if environment is None else environment),
            directory=os.fspath(directory) if directory else None,
            log=str(log) if log else None,
            user=user,
            stop_signal=int(stop_signal),
            grace=grace,
        )
        process = Process(self, name, answer["pid"], log, log_start)
        with self._changed:
            self._processes[process.pid] = process
            if process.pid in self._early:
                process.status = self._early.pop(process.pid)
        return process

    def run(
        self, name: str, arguments: Sequence[str | os.PathLike], timeout: float | None = None, **options: object
    ) -> None:
        """Runs a command to its end. ProcessError if its status is not 0."""
        process = self.start(name, arguments, **options)
        try:
            status = process.wait(timeout)
        except BaseException:
            if self._gone is None:
                process.kill()
            raise
        if status != 0:
            shown = " ".join(map(str, arguments))
            raise ProcessError(f"`{shown}` ended with status {status}. {process.ending()}")

    def temporary_folder(self, label: str) -> Path:
        """A new folder with a short path, removed when the keeper ends."""
        path = tempfile.mkdtemp(prefix=f"waypost-{label}-")
        os.chmod(path, 0o711)
        self._ask("remove_at_end", path=path)
        return Path(path)

    def descendants(self) -> list[processes.Seen]:
        """Every living process under the keeper, daemons and their children included."""
        return processes.descendants(self.pid)

    def hand_over(self) -> None:
        """Lets everything run on after this process; `end_kept(mark)` ends it."""
        self._ask("hand_over")
        with self._changed:
            self._gone = HANDED_OVER

    def end(self) -> None:
        """Ends everything and waits until nothing is left."""
        with self._changed:
            already = self._gone is not None
            self._gone = self._gone or "it was ended"
        if not already:
            try:
                self._channel.sendall(json.dumps({"id": 0, "do": "end"}).encode() + b"\n")
            except OSError:
                pass
        if self._gone != HANDED_OVER:
            self._keeper.wait()
            self._reader.join()


def is_kept(mark: str) -> bool:
    """Whether a keeper of this mark is alive."""
    return bool(processes.with_environment(KEEPER_OF, mark))


def end_kept(mark: str, timeout: float = 60) -> bool:
    """Ends the keeper of this mark with all that it keeps, and what a keeper that was killed left. False if there was
    nothing. TimeoutError names what is still there."""
    found = False
    end = time.monotonic() + timeout
    for keeper in processes.with_environment(KEEPER_OF, mark):
        found = True
        processes.kill(keeper.pid, signal.SIGTERM)
    while is_kept(mark) and time.monotonic() < end:
        time.sleep(0.05)
    while left := processes.with_environment(MARK, mark):
        found = True
        if time.monotonic() > end:
            raise TimeoutError("; ".join(f"process {seen.pid} still runs: {seen.command}" for seen in left))
        for seen in left:
            processes.kill(seen.pid)
        time.sleep(0.05)
    return found
