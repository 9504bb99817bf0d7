"""The dashboards of the charts: each query is of metrics that there are, and none of their panels stays empty over a line
that works."""

from __future__ import annotations

import re
import time

import pytest
from harness import checkout, ports
from harness.prometheus import Prometheus
from monitoring.dashboards import CHARTS, queries

SUFFIXES = r"(?:_bucket|_count|_sum)?$"


def documented(chart):
    """By metric the values that each of its labels can have; None where the page does not list them."""
    found = {}
    for line in (checkout.ROOT / "docs" / CHARTS[chart]).read_text().splitlines():
        if not line.startswith("| `waypost"):
            continue
        name, _, labels, values, _ = (cell.strip() for cell in line.strip("|").split("|"))
        names = re.findall(r"`(\w+)`", labels)
        if "(as called)" in values:
            found[name.strip("`")] = dict.fromkeys(names)
        else:
            found[name.strip("`")] = dict(
                zip(names, [set(part.split(", ")) for part in values.split("; ")], strict=False)
            )
    return found


@pytest.mark.parametrize("chart", CHARTS)
def test_every_query_is_of_metrics_and_labels_that_there_are(chart):
    known = documented(chart)
    for each in queries(chart):
        title = each.panel
        for name, selector in re.findall(r"(waypost\w+)\{([^}]*)\}", each.expression):
            metric = name if name in known else re.sub(SUFFIXES, "", name)
            assert metric in known, f"{title}: there is no metric {name}"
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', selector):
                if label in ("namespace", "job"):
                    continue
                assert label in known[metric], f"{title}: {metric} has no label {label}"
                if known[metric][label] is not None:
                    assert set(values.split("|")) <= known[metric][label], f"{title}: {metric} has no such {label}"


def test_no_panel_is_empty_over_a_line_that_works(keeper, interchange, client, make_endpoint, in_client_environment):
    from globus_compute_sdk import Executor

    address = f"127.0.0.1:{ports.free_port()}"
    endpoint = make_endpoint(interchange, client, "template", environment={"WAYPOST_HTTP": address})
    scraped = {"endpoint": address, "interchange": interchange.url.removeprefix("http://")}
    prometheus = Prometheus(keeper, scraped).start()
    empty = {}
    with Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1) as executor:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            assert [future.result(60) for future in [executor.submit(pow, 2, 3) for _ in range(20)]] == [8] * 20
            empty = {
                (chart, each.panel): each.expression
                for chart in CHARTS
                for each in queries(chart)
                if not each.series(prometheus.query, namespace="tests")
            }
            if not empty:
                break
    assert not empty
    assert number(prometheus, 'waypost_heartbeats_total{outcome="confirmed"}') > 0
    assert number(prometheus, 'waypost_heartbeats_total{outcome="failed"}') == 0
    assert number(prometheus, "waypost_credentials_refused") == 0


def number(prometheus, expression):
    """The sum of the series that a query gives."""
    (series,) = prometheus.query(f"sum({expression})")
    return float(series["value"][1])
