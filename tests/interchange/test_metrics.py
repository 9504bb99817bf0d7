"""The metrics' page in the documentation, and what an interchange serves."""

from __future__ import annotations

import re

from harness import checkout, http

PAGE = checkout.ROOT / "docs" / "interchange-metrics.md"
OPEN = {"route": "(as called)", "method": "(as called)", "status": "(as called)"}
"""Labels whose values depend on the calls: a closed set, too, but too long for a table."""


def rows():
    """The page's table: by metric its type, its labels with their values, and its meaning."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if not line.startswith("| `"):
            continue
        name, kind, labels, values, meaning = (
            cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")
        )
        names = re.findall(r"`(\w+)`", labels)
        found[name.strip("`")] = (kind, dict.fromkeys(names, values), meaning)
    return found


def scrape(interchange):
    """What is served, in the same form."""
    _, text = http.call("GET", f"{interchange.url}/metrics")
    helps = dict(re.findall(r"^# HELP (\w+) (.*)$", text, re.MULTILINE))
    found = {}
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        values = {}
        for labels in re.findall(rf"^{name}(?:_count)?\{{(.*)\}} ", text, re.MULTILINE):
            for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
                values.setdefault(label, set()).add(value)
        listed = {label: OPEN.get(label) or ", ".join(sorted(values[label])) for label in values}
        found[name] = (kind, listed, helps[name])
    return found


def test_the_page_says_what_a_fresh_interchange_serves(make_interchange):
    interchange = make_interchange()
    scrape(interchange)
    assert rows() == scrape(interchange)


def test_routes_are_labelled_by_their_pattern_and_not_by_ids(interchange, alice, somebody):
    alice.call("GET", f"/v2/tasks/{somebody}")
    alice.call("GET", f"/v2/nothing/{somebody}")
    alice.call("BREW", "/v2/endpoints")
    _, text = http.call("GET", f"{interchange.url}/metrics")
    labels = set(re.findall(r'route="([^"]*)"', text))
    assert "/v2/tasks/{id}" in labels and "(none)" in labels
    assert somebody not in text
    methods = set(re.findall(r'method="([^"]*)"', text))
    assert methods <= {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "(any)"}, methods
