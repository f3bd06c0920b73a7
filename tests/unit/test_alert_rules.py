"""What is shipped for Prometheus and Grafana names metrics, labels and pages that exist; and each metric is fed."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosslogic.queueing.model import ShedReason, TrafficClass
from crosslogic.telemetry.metrics import ALL, Metric, Metrics

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "prometheus" / "crosslogic.rules.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(FILE.read_text("utf-8"))["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "crosslogic.json").read_text("utf-8"))
QUERIES: list[str] = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
WORDS = {
    *("sum", "max", "min", "by", "rate", "increase", "time", "absent", "or", "and", "unless"),
    *("histogram_quantile", "max_over_time"),
}
SCRAPED = {"job", "instance", "le"}
METRICS = {metric.name: metric for metric in ALL}


def metric_of(name: str) -> Metric | None:
    found = METRICS.get(name)
    base, _, suffix = name.rpartition("_")
    if found is None and suffix in ("bucket", "sum", "count"):
        found = METRICS.get(base)
        return found if found is not None and found.kind == "histogram" else None
    return found


def named(expression: str) -> set[str]:
    """The metrics of a PromQL expression: every word that is no keyword, label, duration or text."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)', " ", expression)
    return set(re.findall(r"[A-Za-z_:][\w:]*", bare)) - WORDS


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in RULES), *QUERIES])
def test_an_expression_names_metrics_and_labels_that_exist(expression: str) -> None:
    assert named(expression), "an expression without a metric"
    assert {name for name in named(expression) if metric_of(name) is None} == set()
    labels = {label for metric in map(metric_of, named(expression)) if metric is not None for label in metric.labels}
    asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    asked |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    assert asked <= labels | SCRAPED
    for metric in map(metric_of, named(expression)):
        if metric is not None and metric.kind != "gauge":
            assert re.search(rf"(rate|increase)\({metric.name}", expression), "counters are read by how they grow"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_says_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"].endswith(".")
    page, _, section = rule["annotations"]["runbook"].partition("#")
    assert section == rule["alert"].lower()
    assert f"## {rule['alert']}\n" in (ROOT / page).read_text("utf-8")
    assert re.fullmatch(r"\d+[sm]", rule.get("for", "0s"))


def test_values_of_labels_are_those_of_the_code() -> None:
    words = {reason.value for reason in ShedReason} | {traffic.name.lower() for traffic in TrafficClass}
    for rule in RULES:
        for _, value in re.findall(r"(reason|traffic)(?:=~|!~|!=|=)\"([^\"]*)\"", rule["expr"]):
            assert set(value.split("|")) <= words


def test_what_must_be_told_is_told() -> None:
    watched = set().union(*(named(rule["expr"]) for rule in RULES))
    assert watched >= {
        "limits_degraded",
        "queue_shed_total",
        "control_plane_active_nodes",
        "journal_backlog_records",
        "ledger_whole_timestamp_seconds",
        "billing_records_failed_total",
        "control_leading",
    }


def test_each_metric_has_somebody_who_feeds_it() -> None:
    """A metric that nobody feeds is always fine, and an alert on it never comes."""
    source = "\n".join(
        path.read_text("utf-8")
        for path in (ROOT / "src" / "crosslogic").rglob("*.py")
        if path.parent.name != "telemetry"
    )
    methods = [name for name, value in vars(Metrics).items() if callable(value) and not name.startswith("_")]
    unfed = [name for name in methods if name not in ("number", "histogram") and not re.search(rf"\.{name}\b", source)]
    assert unfed == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_itself_takes_the_file() -> None:
    checked = subprocess.run(["promtool", "check", "rules", FILE], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
