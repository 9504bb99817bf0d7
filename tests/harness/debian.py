"""Packages from Debian: installed without letting their services start, and whole roots of other releases."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.keeper import Keeper

# Runs as root. Its standard input is the lifeline: when that ends, its starter is gone, and apt is asked to stop at the
# next safe point. policy-rc.d keeps the new packages' services from starting; one that was there already stays.
_INSTALL = r"""
policy=/usr/sbin/policy-rc.d
unset mine
if [ ! -e "$policy" ]; then
    mine=1
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy" || exit 1
fi
trap '' INT
export DEBIAN_FRONTEND=noninteractive
in_dpkg() {
    for below in $(cat "/proc/$child/task/$child/children"); do
        [ "$(cat "/proc/$below/comm")" != dpkg ] || return 0
    done
    return 1
}
run() {
    setsid apt-get -q -o Dpkg::Use-Pty=0 "$@" < /dev/null &
    child=$!
    ( cat > /dev/null; while in_dpkg; do sleep 0.2; done; kill $child ) <&3 2> /dev/null &
    watcher=$!
    wait $child
    status=$?
    kill $watcher 2> /dev/null
    return $status
}
exec 3<&0
run install -y --no-install-recommends "$@" || { run update && run install -y --no-install-recommends "$@"; }
installed=$?
# What was not there before must not start at the next boot either. Nor may it if apt was stopped: dpkg may be done with it.
for service in $NEW_SERVICES; do
    if [ -d /run/systemd/system ]; then
        systemctl disable -q "$service.service" 2> /dev/null
        [ "$service" != epmd ] || systemctl disable -q --now epmd.socket 2> /dev/null
    elif command -v update-rc.d > /dev/null; then
        update-rc.d "$service" disable > /dev/null 2>&1
    fi
done
exit $installed
"""

_SERVICES = {"rabbitmq-server": ("rabbitmq-server", "epmd"), "prometheus": ("prometheus",)}


def missing(packages: list[str]) -> list[str]:
    """Those of the packages that are not installed."""
    if shutil.which("dpkg-query") is None:
        raise FileNotFoundError("this is not Debian or one of its kind: dpkg-query is missing")

    def installed(package: str) -> bool:
        command = ["dpkg-query", "-W", "-f", "${Status}", package]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "install ok installed"

    return [package for package in packages if not installed(package)]


def install(packages: list[str], log: Path | None = None) -> None:
    """Installs packages with apt, by sudo unless we are root. Their services are kept from starting.

    RuntimeError says what to do if it cannot.
    """
    wanted = missing(packages)
    if not wanted:
        return
    root = os.geteuid() == 0
    if not root and shutil.which("sudo") is None:
        raise RuntimeError(
            f"installing {' '.join(wanted)} needs root, and there is no sudo: as root, "
            f"run `apt-get install {' '.join(wanted)}`, then start again"
        )
    services = " ".join(name for package in wanted for name in _SERVICES.get(package, ()))
    command = [*([] if root else ["sudo"]), "env", f"NEW_SERVICES={services}", "sh", "-c", _INSTALL, "install", *wanted]
    lifeline_read, lifeline_write = os.pipe()
    output = log.open("ab") if log else None
    try:
        process = subprocess.Popen(
            command, stdin=lifeline_read, stdout=output, stderr=subprocess.STDOUT if output else None
        )
        os.close(lifeline_read)
        try:
            status = process.wait()
        except BaseException:
            os.close(lifeline_write)
            lifeline_write = -1
            print("waiting for apt to stop at a safe point ...", file=sys.stderr)
            process.wait()
            raise
    finally:
        if lifeline_write != -1:
            os.close(lifeline_write)
        if output:
            output.close()
    if status != 0:
        shown = f"; its log is {log}" if log else ""
        raise RuntimeError(f"`apt-get install {' '.join(wanted)}` failed with status {status}{shown}")


class Root:
    """A folder with the files of a Debian release and some packages, made by mmdebstrap and kept."""

    def __init__(self, folder: Path, suite: str, packages: list[str]):
        self.folder = Path(folder)
        self.suite = suite
        self.packages = packages

    def make(self, keeper: Keeper) -> Root:
        """Makes it unless it is there."""
        if os.geteuid() != 0:
            raise PermissionError(f"a root of Debian {self.suite} is entered with chroot, which only root may do")
        mark = self.folder.with_suffix(".complete")
        if mark.exists() and mark.read_text() == " ".join(self.packages):
            return self
        if shutil.which("mmdebstrap") is None:
            raise FileNotFoundError("mmdebstrap is missing (Debian: apt-get install mmdebstrap)")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        packages = ",".join(self.packages)
        command = ["mmdebstrap", "--variant=essential", f"--include={packages}", self.suite, self.folder]
        keeper.run(f"mmdebstrap-{self.suite}", command, timeout=600)
        mark.write_text(" ".join(self.packages))
        return self
