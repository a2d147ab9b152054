"""docs/alerts.yml and docs/grafana-dashboard.json: Prometheus takes them, and they are about metrics that there are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.telemetry.metrics import Metrics
from tests.support.gateway import REPOSITORY

ALERTS = REPOSITORY / "docs" / "alerts.yml"
CASES = REPOSITORY / "tests" / "vectors" / "alerts.yml"
DASHBOARD = json.loads((REPOSITORY / "docs" / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]

FAMILIES = {family.name: family.type for family in Metrics().registry.collect()}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
SERIES = {name + suffix: name for name, kind in FAMILIES.items() for suffix in SUFFIXES.get(kind, ("",))}
# By family: what nobody has to see all the time.
NOT_ON_THE_DASHBOARD = {
    "process_virtual_memory_bytes",  # what was asked for, not what is used
    "gateway_certificate_days",  # an alert says when
    "python_info",
    "python_gc_objects_collected",
    "python_gc_objects_uncollectable",
}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


TARGETS = [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", ())]
QUERIES = [variable["definition"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]


def metrics_in(text: str) -> set[str]:
    """Names of series of ours in an expression; not those of recorded rules, which have a colon."""
    return set(re.findall(r"(?<![\w:\"$])(?:gateway|process|python)_\w+", text))


# Names.


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.get("alert") or rule["record"]))
def test_alert_is_about_metrics_that_there_are(rule: dict[str, Any]) -> None:
    told = "".join([rule["expr"], *rule.get("annotations", {}).values()])
    assert metrics_in(told) <= SERIES.keys() | FAMILIES.keys()
    assert metrics_in(rule["expr"]) <= SERIES.keys()


@pytest.mark.parametrize(("title", "expression"), [*TARGETS, *(("a variable", query) for query in QUERIES)])
def test_dashboard_shows_metrics_that_there_are(title: str, expression: str) -> None:
    assert metrics_in(expression)
    assert metrics_in(expression) <= SERIES.keys(), title


def test_dashboard_shows_every_metric_that_is_not_left_out_on_purpose() -> None:
    shown = {SERIES[name] for _, expression in TARGETS for name in metrics_in(expression)}
    assert FAMILIES.keys() - shown == NOT_ON_THE_DASHBOARD


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: str(rule["alert"]))
def test_alert_says_how_bad_it_is_and_where(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert "{{ $labels.instance }}" in rule["annotations"]["summary"] or "sum by (job) (" in rule["expr"]


def test_alerts_have_names_of_their_own() -> None:
    names = Counter(rule.get("alert") or rule["record"] for rule in RULES)
    assert [name for name, count in names.items() if count > 1] == []


def test_every_alert_fires_in_some_case() -> None:
    labels = [
        sample["labels"]
        for case in yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
        for question in case["promql_expr_test"]
        for sample in question["exp_samples"]
    ]
    fired = {name for label in labels for name in re.findall(r'alertname="(\w+)"', label)}
    assert fired == {rule["alert"] for rule in RULES if "alert" in rule}


# The dashboard.


def test_dashboard_asks_the_source_that_is_chosen() -> None:
    assert [one["type"] for one in DASHBOARD["templating"]["list"] if one["name"] == "datasource"] == ["datasource"]
    asked = {json.dumps(panel["datasource"]) for panel in panels() if panel["type"] != "row"}
    asked |= {json.dumps(target["datasource"]) for panel in panels() for target in panel.get("targets", ())}
    assert asked == {'{"type": "prometheus", "uid": "${datasource}"}'}


def test_dashboard_narrows_every_series_to_the_chosen_instances() -> None:
    for title, expression in TARGETS:
        names = re.findall(r"\b(?:gateway|process|python)_\w+", expression)
        assert expression.count('{job=~"$job", instance=~"$instance"') == len(names), title


def test_dashboard_has_its_rows_in_order() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Now",
        "Traffic",
        "Latency",
        "Fan-out",
        "Kafka",
        "Orders",
        "Limits and errors",
        "Process",
        "What is kept",
    ]


def test_dashboard_puts_no_panel_upon_another() -> None:
    def corners(panel: dict[str, Any]) -> tuple[int, int, int, int]:
        at = panel["gridPos"]
        return at["x"], at["y"], at["x"] + at["w"], at["y"] + at["h"]

    assert all(corners(panel)[2] <= 24 for panel in panels())
    for one, other in combinations(panels(), 2):
        left, top, right, bottom = corners(one)
        x, y, to_x, to_y = corners(other)
        assert right <= x or to_x <= left or bottom <= y or to_y <= top, (one["title"], other["title"])


def test_dashboard_numbers_its_panels_once() -> None:
    assert max(Counter(panel["id"] for panel in panels()).values()) == 1


# What Prometheus says.


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' own checker; where it is not installed the test is skipped, or fails if REQUIRE_PROMTOOL is 1."""
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("REQUIRE_PROMTOOL") == "1":
            pytest.fail("no promtool: Debian's package prometheus has it", pytrace=False)
        pytest.skip("no promtool: Debian's package prometheus has it")
    return found


def accepted(promtool: str, *arguments: str | Path) -> str:
    """What it says; AssertionError unless it finds nothing wrong."""
    done = subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_alerts(promtool: str) -> None:
    assert f"{len(RULES)} rules found" in accepted(promtool, "check", "rules", ALERTS)


def test_alerts_fire_for_what_they_are_about_and_on_no_ordinary_day(promtool: str) -> None:
    assert "SUCCESS" in accepted(promtool, "test", "rules", CASES)


def test_promtool_accepts_what_the_dashboard_asks(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, (_, expression) in enumerate(TARGETS)
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    assert f"{len(TARGETS)} rules found" in accepted(promtool, "check", "rules", file)


def test_promtool_accepts_the_metrics_as_they_are_written(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "check", "metrics"], input=Metrics().text(), capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
