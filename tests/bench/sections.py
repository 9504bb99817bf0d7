"""The page that keeps the figures: each command of this folder writes a section of its own and leaves the others."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

HEAD = "# Benchmarks\n\nAbsolute figures are of one machine on one day: compare the ratios.\n"


def put(page: Path, name: str, text: str) -> None:
    """Replaces a section of the page, or adds it at the end."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}\n"
    old = page.read_text() if page.exists() else ""
    if not old.startswith(HEAD):
        old = HEAD
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}\n", re.DOTALL)
    if pattern.search(old):
        new = pattern.sub(lambda _: section, old)
    else:
        new = f"{old}\n{section}"
    page.write_text(new)


def today() -> str:
    return time.strftime("%Y-%m-%d")


def machine() -> str:
    """The processor, its count and the memory."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory_gib:.0f} GiB, Linux {platform.release()}"
