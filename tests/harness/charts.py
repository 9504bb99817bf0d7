"""The charts: where they are, what Helm makes of them, and the table of values in README.md, which is made of the
comments `# --` in values.yaml. `PYTHONPATH=tests python3 -m harness.charts helm/endpoint` writes it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import checkout

ENDPOINT = checkout.ROOT / "helm" / "endpoint"
INTERCHANGE = checkout.ROOT / "helm" / "interchange"
VALUES = checkout.ROOT / "tests" / "charts" / "values"
"""Values files that tests share."""

HEADER = "| value | default | meaning |\n|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """A value that has a comment."""

    path: str
    default: str
    meaning: str

    def __str__(self) -> str:
        cell = lambda text: text.replace("|", "\\|")  # noqa: E731
        return f"| `{self.path}` | `{cell(self.default)}` | {cell(self.meaning)} |\n"


def rows(text: str) -> list[Row]:
    """The values that have comments, in their order. What stands below such a value belongs to its default."""
    found: list[Row] = []
    path: list[tuple[int, str]] = []
    meaning = ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if comment := re.match(r"\s*# -- (.*)", line):
            meaning = comment[1]
            continue
        key = re.match(r"(\s*)([A-Za-z][\w.-]*):\s*(.*)", line)
        if key is None:
            continue
        depth = len(key[1])
        path = [*((level, name) for level, name in path if level < depth), (depth, key[2])]
        if meaning:
            below = []
            for each in lines[number + 1 :]:
                if not each.startswith(" " * (depth + 1)):
                    break
                below.append(each)
            default = key[3] or _flow(below)
            found.append(Row(".".join(name for _, name in path), default, meaning))
        meaning = ""
    return found


def _flow(lines: list[str]) -> str:
    """A block of YAML on one line, if it is made of mappings."""
    depth = len(lines[0]) - len(lines[0].lstrip())
    parts: list[str] = []
    for number, line in enumerate(lines):
        if len(line) - len(line.lstrip()) > depth:
            continue
        key, _, value = line.strip().partition(":")
        below = []
        for each in lines[number + 1 :]:
            if len(each) - len(each.lstrip()) <= depth:
                break
            below.append(each)
        parts.append(f"{key}: {value.strip() or _flow(below)}")
    return "{" + ", ".join(parts) + "}"


def table(chart: Path) -> str:
    """The table as it is to be."""
    return HEADER + "".join(map(str, rows((chart / "values.yaml").read_text())))


def written(chart: Path) -> str:
    """The table as it stands in README.md; empty if there is none."""
    text = (chart / "README.md").read_text()
    return text[text.index(HEADER) :] if HEADER in text else ""


def main() -> int:
    for name in sys.argv[1:]:
        chart = Path(name)
        readme = chart / "README.md"
        text = readme.read_text()
        before = text[: text.index(HEADER)] if HEADER in text else text
        readme.write_text(before + table(chart))
    return 0


if __name__ == "__main__":
    sys.exit(main())
