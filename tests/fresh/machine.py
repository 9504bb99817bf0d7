#!/usr/bin/env python3
"""Tries ./demo on a fresh Debian, as an ordinary user with sudo. Not a stage of ./test: it takes long.

    sudo tests/fresh/machine.py trixie --target target
    sudo tests/fresh/machine.py bookworm --target target --beside

makes a root of that release with mmdebstrap, with a clone of this checkout, this machine's Rust and cargo's downloads,
and enters it with processes of its own, so that whatever a demo leaves running is seen. There it ends the demo at each
of its steps, by Ctrl-C and by SIGKILL, then lets it come to its picture, again after `git clean -xdf`, and once more.
With --beside a RabbitMQ of the system's runs meanwhile, in a network of its own, and must not be touched: all is
installed then, so this comes after a run without it. --target copies what was built here, else all is built there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USER = "someone"
HOME = Path("/home") / USER
CHECKOUT = HOME / "waypost"
PACKAGES = "passwd,login,python3,build-essential,ca-certificates,sudo,git,procps"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=["bookworm", "trixie"])
    parser.add_argument("--folder", type=Path, default=ROOT / ".test" / "fresh", help="where the root is made")
    parser.add_argument("--target", type=Path, help="a folder of cargo's output to begin with")
    parser.add_argument("--beside", action="store_true", help="with a RabbitMQ of the system's that runs")
    parser.add_argument("--port", default="5000", help="./demo's --port: the network is this machine's")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        return inside(arguments.beside, arguments.port)
    root = arguments.folder / arguments.suite
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        command = ["mmdebstrap", "--variant=apt", f"--include={PACKAGES}", arguments.suite, root]
        subprocess.run(command, check=True)
        furnish(root, arguments.target)
        (root / "complete").touch()
    (root / "tests/fresh").mkdir(parents=True, exist_ok=True)
    shutil.copy(__file__, root / "tests/fresh")
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "LANG", "TERM"))}
    enter = "mount --make-rprivate / && mount -t proc proc $0/proc && mount --rbind /dev $0/dev && exec chroot $0 "
    enter += f"python3 /tests/fresh/machine.py {arguments.suite} --inside {'--beside' if arguments.beside else ''}"
    enter += f" --port {arguments.port}"
    network = ["--net"] if arguments.beside else []
    if arguments.beside:
        enter = "ip link set lo up && " + enter
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *network, "sh", "-c", enter, root]
    # In our own place, so that whoever ends this process ends all of them.
    return os.execvpe(command[0], command, {**kept, "PATH": os.environ["PATH"]})


def furnish(root: Path, target: Path | None) -> None:
    """What a user would have: an account that may use sudo, Rust, the checkout; and this machine's way out."""
    for name in ("/etc/resolv.conf", CERTIFICATES):
        (root / name.lstrip("/")).unlink(missing_ok=True)
        shutil.copy(name, root / name.lstrip("/"))
    # An installed Debian has this, and mmdebstrap leaves it to whoever configures the network.
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    if os.path.isdir(wheels):
        shutil.copytree(wheels, root / wheels.lstrip("/"))
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    inside = root / str(HOME).lstrip("/")
    subprocess.run(["chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", USER], check=True)
    (root / "etc/sudoers.d" / USER).write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    subprocess.run(["cp", "-a", sysroot, root / "opt/rust"], check=True)
    # At the same path as here: cargo takes what was built for another for stale.
    downloads = root / str(cargo).lstrip("/")
    downloads.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", cargo / "registry", downloads / "registry"], check=True)
    subprocess.run(["chroot", root, "chown", "-R", f"{USER}:{USER}", cargo], check=True)
    for parent in [cargo, *cargo.parents][:-1]:
        (root / str(parent).lstrip("/")).chmod(0o755)
    (root / "etc/cargo_home").write_text(str(cargo))
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, inside / "waypost"], check=True)
    if target:
        subprocess.run(["cp", "-a", target, inside / "target"], check=True)
    subprocess.run(["chroot", root, "chown", "-R", f"{USER}:{USER}", HOME], check=True)


# ---- Inside the root: this process is the first of its processes, and sees all others.


@dataclass(frozen=True)
class Step:
    """A step of the demo, and when it is under way: its words are on the screen, and a process of that name runs."""

    shown: str
    process: str = ""
    # What makes the demo take the step again.
    undo: str = ""

    def under_way(self, log: Path) -> bool:
        return self.shown in log.read_text() and any(self.process in command for command in processes().values())


STEPS = [
    Step(
        "Installing rabbitmq-server",
        process="dpkg --status-fd",
        # Where dpkg was stopped in the midst of it, the demo has to go on from there.
        undo="! dpkg-query -W -f '${Status}' rabbitmq-server | grep -q 'ok installed'"
        " || apt-get purge -qq --autoremove rabbitmq-server",
    ),
    Step("Installing the SDK", process=" pip ", undo="rm -rf .demo/venv"),
    Step("Building", process="cargo"),
    Step("Starting RabbitMQ", process="beam"),
    Step("Starting an endpoint", process="endpoint"),
    Step("Computing", process="examples"),
]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(HOME),
        "USER": USER,
        "PATH": "/opt/rust/bin:/usr/local/bin:/usr/bin:/bin",
        "CARGO_HOME": Path("/etc/cargo_home").read_text(),
        "CARGO_NET_OFFLINE": "true",
        # `git clean` leaves it, so that one build does for all.
        "CARGO_TARGET_DIR": str(HOME / "target"),
    }


def demo(output, port: str) -> subprocess.Popen:
    """./demo --yes as the user would start it at a terminal."""
    return subprocess.Popen(
        ["./demo", "--yes", "--port", port],
        cwd=CHECKOUT,
        env=environment(),
        user=USER,
        group=USER,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        # As at a terminal: what a shell starts in the background would not hear SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def processes() -> dict[int, str]:
    """Every process but this one, with its start time and command."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split() if entry.isdigit() else None
            if stat and int(entry) != os.getpid() and stat[0] not in "ZX":
                command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(entry)] = f"{stat[19]} {command}"
        except OSError:
            continue
    return found


def reap() -> None:
    """Takes in the orphans, whose parent we are."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def nothing_left(before: dict[int, str], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reap()
        if not set(processes().items()) - set(before.items()):
            return not Path("/usr/sbin/policy-rc.d").exists()
        time.sleep(0.1)
    print(f"    LEFT: {set(processes().items()) - set(before.items())}")
    return False


def system_files() -> list[tuple[str, int, int]]:
    """Who owns what in the folders of the system's RabbitMQ, but for its tables, where a living node makes and drops
    files by itself."""
    found = []
    for top in ("/etc/rabbitmq", "/var/lib/rabbitmq"):
        for place, _, names in os.walk(top):
            for name in names:
                path = Path(place, name)
                if "mnesia" in path.parts:
                    continue
                found.append((str(path), path.stat().st_uid, path.stat().st_mode))
    return sorted(found)


def start_system_broker() -> None:
    policy = Path("/usr/sbin/policy-rc.d")
    assert not policy.exists()
    subprocess.Popen(["/usr/sbin/rabbitmq-server"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # RabbitMQ 3.10 does not wait for a node that epmd does not know yet.
    end = time.monotonic() + 120
    wait = ["rabbitmqctl", "await_startup", "--timeout", "60"]
    while subprocess.run(wait, capture_output=True).returncode and time.monotonic() < end:
        time.sleep(0.5)
    subprocess.run(wait, check=True, stdout=subprocess.DEVNULL)
    while any("rabbitmqctl" in command for command in processes().values()):
        time.sleep(0.1)


def starts_at_boot() -> list[str]:
    return [str(path) for path in Path("/etc").glob("rc[2345].d/S*") if "rabbitmq" in path.name or "epmd" in path.name]


def inside(beside: bool, port: str) -> int:
    wrong: list[str] = []

    def check(what: str, good: bool) -> None:
        print(f"  {'ok  ' if good else 'WRONG'} {what}", flush=True)
        if not good:
            wrong.append(what)

    if beside:
        start_system_broker()
    before, files = processes(), system_files()
    log = Path("/tmp/demo.log")
    for step in STEPS[2:] if beside else STEPS:
        for number in (signal.SIGINT, signal.SIGKILL):
            if step.undo:
                subprocess.run(["sh", "-ec", step.undo], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
            with log.open("w") as output:
                run = demo(output, port)
                while not step.under_way(log) and run.poll() is None:
                    time.sleep(0.02)
                time.sleep(0.1)
                reached = run.poll() is None
                run.send_signal(number)
                status = run.wait()
            name = signal.Signals(number).name
            check(f"{name} while {step.shown}: status {status}, nothing is left", nothing_left(before))
            check("    the step was reached", reached)
            if not reached:
                print(log.read_text()[-2000:])
    for what in ("to its end", "after git clean -xdf", "again"):
        if "clean" in what:
            subprocess.run(
                ["git", "clean", "-xdfq"], cwd=CHECKOUT, user=USER, group=USER, env=environment(), check=True
            )
            if beside:
                continue  # pip has no way out of this network
        start = time.monotonic()
        with log.open("w") as output:
            status = demo(output, port).wait()
        text = log.read_text()
        right = status == 0 and "The picture is right." in text and (CHECKOUT / ".demo/mosaic.png").exists()
        check(f"{what}: the picture, in {time.monotonic() - start:.1f} s", right)
        if not right:
            print(text[-3000:])
        check("    nothing is left", nothing_left(before))
        if beside:
            break
    if beside:
        check("the system's processes are the same", set(before.items()) <= set(processes().items()))
        changed = sorted(set(system_files()) ^ set(files))
        check(f"its files are the same {changed}", not changed)
    else:
        check(f"nothing of RabbitMQ starts at boot {starts_at_boot()}", not starts_at_boot())
    done = subprocess.run(
        ["git", "status", "--porcelain"], cwd=CHECKOUT, user=USER, env=environment(), capture_output=True
    )
    check("the checkout is clean", done.stdout == b"")
    print(f"{len(wrong)} wrong: {wrong}" if wrong else "all as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
