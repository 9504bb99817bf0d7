"""A disk of a few mebibytes, to be filled."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from harness.keeper import Keeper, ProcessError

MEBIBYTE = 1024 * 1024

MOUNT = """\
trap 'umount --lazy "$1"' EXIT
trap 'exit 0' TERM INT
mount -t tmpfs -o "size=$2,mode=0711" tmpfs "$1"
sleep infinity & wait
"""
"""Mounts, and unmounts when it is told to end; a shell that a signal ends would not come to its EXIT."""


class SmallDisk:
    """A file system in memory at `folder`. It is mounted for the whole machine, which needs root, and goes away with the
    keeper."""

    def __init__(self, keeper: Keeper, name: str, mebibytes: int):
        if os.geteuid() != 0:
            raise PermissionError("a small disk is mounted, which needs root")
        self.folder = keeper.temporary_folder(name)
        size = str(mebibytes * MEBIBYTE)
        self.process = keeper.start(name, ["sh", "-e", "-c", MOUNT, "sh", self.folder, size])
        self.process.wait_until(lambda: os.path.ismount(self.folder), "mounted")

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self, all_but: int = 0) -> None:
        """Leaves no room, but for so many bytes."""
        left = os.statvfs(self.folder)
        rest = max(0, left.f_bavail * left.f_frsize - all_but)
        with self._filler.open("ab", buffering=0) as file:
            try:
                while rest > 0:
                    rest -= file.write(b"\0" * min(rest, MEBIBYTE))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def make_room(self) -> None:
        """Takes away what `fill` put there."""
        self._filler.unlink(missing_ok=True)

    def end(self) -> None:
        """Unmounts it."""
        self.process.stop()
        if os.path.ismount(self.folder):
            raise ProcessError(f"{self.folder} is still mounted. {self.process.ending()}")
