"""The keeper: a process that starts others and ends them all, however its own starter ends.

It leads a session of its own, so that a terminal's Ctrl-C and a kill of the starter's group pass it by, and it is the
subreaper of everything below it: a daemon that forks twice, or a worker that leads its own session, becomes its child
and not init's. One socket joins it to its starter. When that closes, for whatever reason, the keeper ends what it
started, in the reverse of their order, and then every other descendant, and exits.

Requests and answers are lines of JSON; see `Keeper` in keeper.py for the other side.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time

from harness import processes

MARK = "WAYPOST_KEEPER"
"""Environment variable that every process under a keeper carries; its value names the keeper."""
KEEPER_OF = "WAYPOST_KEEPER_OF"
"""The same value in the environment of the keeper itself."""


class Managed:
    """A process that was asked for by name."""

    def __init__(self, popen: subprocess.Popen, name: str, stop_signal: int, grace: float):
        self.popen, self.name, self.stop_signal, self.grace = popen, name, stop_signal, grace


class KeeperProcess:
    def __init__(self, channel: socket.socket, mark: str, epitaph: str):
        self.channel: socket.socket | None = channel
        self.mark = mark
        self.epitaph = epitaph
        self.buffer = b""
        self.managed: dict[int, Managed] = {}
        self.paths: list[str] = []
        self.handed_over = False
        self.selector = selectors.DefaultSelector()
        self.selector.register(channel, selectors.EVENT_READ, self.read_requests)
        self.ending = False

    def serve(self) -> None:
        """Runs until the starter is gone, asks for the end, or a signal does."""
        processes.become_subreaper()
        wake_read, wake_write = socket.socketpair()
        for end in (wake_read, wake_write):
            end.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: setattr(self, "ending", True))
        self.selector.register(wake_read, selectors.EVENT_READ, lambda end: (end.recv(4096), self.reap()))
        while not self.ending:
            for key, _ in self.selector.select():
                key.data(key.fileobj)
        self.end_everything()

    def send(self, message: dict) -> None:
        if self.channel is None:
            return
        try:
            self.channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def read_requests(self, channel: socket.socket) -> None:
        try:
            data = channel.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(channel)
            channel.close()
            self.channel = None
            if not self.handed_over:
                if self.epitaph:
                    print(self.epitaph, file=sys.stderr, flush=True)
                self.ending = True
            return
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            try:
                answer = getattr(self, "do_" + request["do"])(request) or {}
            except Exception as error:  # every failure belongs to the asker
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.send({"id": request["id"], **answer})

    def do_start(self, request: dict) -> dict:
        output = None
        if request["log"] is not None:
            output = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        user = request["user"]
        try:
            popen = subprocess.Popen(
                request["arguments"],
                env={**request["environment"], MARK: self.mark},
                cwd=request["directory"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=processes.prepare_child,
                **({"user": user, "group": user, "extra_groups": []} if user else {}),
            )
        finally:
            if output is not None:
                os.close(output)
        self.managed[popen.pid] = Managed(popen, request["name"], request["stop_signal"], request["grace"])
        return {"pid": popen.pid}

    def do_signal(self, request: dict) -> None:
        pid = request["pid"]
        below = processes.descendants(pid) if request["tree"] else []
        for target in [pid, *(seen.pid for seen in below)]:
            if target in self.managed or any(seen.pid == target for seen in processes.descendants(os.getpid())):
                processes.kill(target, request["signal"])

    def do_remove_at_end(self, request: dict) -> None:
        self.paths.append(request["path"])

    def do_hand_over(self, request: dict) -> None:
        """From now on the starter may go: SIGTERM ends what runs."""
        self.handed_over = True
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        os.close(nowhere)

    def do_end(self, request: dict) -> None:
        self.ending = True

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            managed = self.managed.pop(pid, None)
            if managed is None:
                continue
            managed.popen.returncode = os.waitstatus_to_exitcode(status)
            self.send({"exited": pid, "status": managed.popen.returncode})

    def wait_until(self, condition, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
            self.reap()
        return True

    def end_everything(self) -> None:
        for managed in reversed(list(self.managed.values())):
            processes.kill(managed.popen.pid, managed.stop_signal)
            self.wait_until(lambda pid=managed.popen.pid: pid not in self.managed, managed.grace)
        end = time.monotonic() + 30
        while (left := processes.descendants(os.getpid())) and time.monotonic() < end:
            for seen in left:
                try:
                    processes.kill(seen.pid)
                except PermissionError:
                    pass
            time.sleep(0.01)
            self.reap()
        for seen in left:
            print(f"could not end process {seen.pid}: {seen.command}", file=sys.stderr)
        self.reap()
        for path in reversed(self.paths):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            elif os.path.lexists(path):
                os.unlink(path)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    KeeperProcess(channel, sys.argv[2], sys.argv[3]).serve()


if __name__ == "__main__":
    main()
