"""The charts' dashboards, and what their queries give on a Prometheus.

`PYTHONPATH=tests python3 -m monitoring.dashboards http://PROMETHEUS` prints that as tables, as docs/operations.md has them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness import checkout
from harness.prometheus import query

CHARTS = {"endpoint": "metrics.md", "interchange": "interchange-metrics.md"}
"""By chart the page that lists its metrics."""


@dataclass(frozen=True)
class Query:
    """One of a panel's."""

    panel: str
    legend: str
    unit: str
    expression: str

    def series(
        self, ask: Callable[[str], list[dict]], namespace: str = ".+", job: str = ".+"
    ) -> list[tuple[str, float]]:
        """What it gives: a name and a number for each series. A quantile of nothing is no number, and left out."""
        asked = self.expression.replace("$__rate_interval", "60s").replace("$namespace", namespace).replace("$job", job)
        found = []
        for series in ask(asked):
            name = self.legend
            for label in re.findall(r"\{\{(\w+)\}\}", name):
                name = name.replace(f"{{{{{label}}}}}", series["metric"].get(label, ""))
            if series["value"][1] != "NaN":
                found.append((name, float(series["value"][1])))
        return found


def queries(chart: str) -> Iterator[Query]:
    """Every query of a chart's dashboard, in the order of its panels."""
    dashboard = json.loads((checkout.ROOT / "helm" / chart / "monitoring" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
            yield Query(panel["title"], target.get("legendFormat") or "", unit, target["expr"])


SHOWN = {
    "percentunit": lambda number: f"{100 * number:.0f} %",
    "s": lambda number: f"{1000 * number:.3g} ms",
    "ops": lambda number: f"{number:.3g} /s",
    "reqps": lambda number: f"{number:.3g} /s",
    "bytes": lambda number: f"{number:.0f} B",
    "short": lambda number: f"{number:.4g}",
}
"""A number as Grafana shows one of that unit, or nearly."""


def table(chart: str, ask: Callable[[str], list[dict]]) -> str:
    """A dashboard's panels with what they show now, as Markdown."""
    shown: dict[str, list[tuple[float, str]]] = {}
    for each in queries(chart):
        parts = shown.setdefault(each.panel, [])
        for name, number in each.series(ask):
            parts.append((number, f"{name} {SHOWN[each.unit](number)}".strip()))
    lines = []
    for panel, parts in shown.items():
        # A series that is zero tells nothing beside one that is not.
        told = [text for number, text in parts if number] or (["0"] if parts else ["no data"])
        lines.append(f"| {panel} | {', '.join(told)} |\n")
    return f"| {chart} | |\n|---|---|\n{''.join(lines)}"


if __name__ == "__main__":
    for chart in CHARTS:
        print(table(chart, lambda expression: query(sys.argv[1], expression)))
