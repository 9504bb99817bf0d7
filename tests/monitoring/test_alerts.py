"""The alert rules of the charts: each fires when it should, and not when it should not, and is explained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from harness import checkout

RULES = {
    "endpoint": checkout.ROOT / "helm" / "endpoint" / "monitoring" / "alerts.yaml",
    "interchange": checkout.ROOT / "helm" / "interchange" / "monitoring" / "alerts.yaml",
}
CASES = Path(__file__).parent
RUNBOOK = checkout.ROOT / "docs" / "operations.md"


def alerts(chart):
    return [rule for group in yaml.safe_load(RULES[chart].read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("chart", RULES)
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(chart):
    cases = yaml.safe_load((CASES / f"{chart}_alerts.yaml").read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    fires = {check["alertname"] for check in checks if check.get("exp_alerts")}
    silent = {check["alertname"] for check in checks if not check.get("exp_alerts")}
    names = {rule["alert"] for rule in alerts(chart)}
    assert fires == names
    assert silent >= names


@pytest.mark.parametrize("chart", RULES)
def test_the_alerts_do_what_their_cases_say(chart):
    command = ["promtool", "test", "rules", f"{chart}_alerts.yaml"]
    done = subprocess.run(command, cwd=CASES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("chart", RULES)
def test_every_alert_names_its_entry_in_the_runbook(chart):
    headings = re.findall(r"^### (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    for rule in alerts(chart):
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["alert"] in headings
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_the_runbook_has_no_entry_without_an_alert():
    headings = re.findall(r"^### (Waypost\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for chart in RULES for rule in alerts(chart))
