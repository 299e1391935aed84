"""Alerts and dashboards in Prometheus' own hands: every expression parses, every alert fires when it should."""

from __future__ import annotations

import subprocess
import sys

import kube_tools
from charts_bed import OPERATOR, ROOT


def test_the_rules_file_is_one_that_prometheus_takes() -> None:
    command = ("check", "rules", "--lint=all", "--lint-fatal", OPERATOR / "rules" / "alerts.yaml")
    assert "9 rules found" in kube_tools.run("promtool", *command)


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    said = kube_tools.run(
        "promtool", "test", "rules", ROOT / "tests" / "unit" / "charts" / "alerts.promtest.yaml"
    )
    assert "SUCCESS" in said


def test_every_expression_of_the_dashboards_parses() -> None:
    program = [ROOT / "scripts" / "lint_dashboards.py", "--promtool", kube_tools.path("promtool")]
    done = subprocess.run(
        [sys.executable, *program], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
