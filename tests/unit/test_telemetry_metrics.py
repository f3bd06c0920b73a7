"""Metrics: any worker answers for all, totals never go back, labels stay few."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crosslogic.telemetry import slots as slots_module
from crosslogic.telemetry.exposition import render
from crosslogic.telemetry.metrics import ALL, LABEL_VALUES, SCHEMA, Metrics
from crosslogic.telemetry.slots import Slots, remove, shared_directory

CHAT = "/v1/chat/completions"


def scrape(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus would read, by sample name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(metrics.slots).decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scrape(metrics).get((name, frozenset(labels.items())))


def finish(metrics: Metrics, model: str = "qwen", duration_s: float = 0.3, status: int = 200) -> None:
    metrics.request_finished(
        CHAT,
        model,
        status,
        "completed",
        duration_s=duration_s,
        first_token_s=0.02,
        prompt_tokens=10,
        completion_tokens=20,
        cached_tokens=4,
    )


def worker(directory: Path, number: int) -> Metrics:
    return Metrics(Slots(directory, number, schema=SCHEMA))


def test_a_finished_request_counts_everywhere() -> None:
    metrics = Metrics(Slots())
    finish(metrics)
    finish(metrics, duration_s=2.0)
    assert value(metrics, "control_plane_requests_total", endpoint=CHAT, status="200") == 2
    assert value(metrics, "inference_requests_total", model="qwen", outcome="completed") == 2
    assert value(metrics, "tokens_processed_total", model="qwen", kind="prompt") == 20
    assert value(metrics, "tokens_processed_total", model="qwen", kind="completion") == 40
    assert value(metrics, "tokens_processed_total", model="qwen", kind="cached") == 8
    assert value(metrics, "inference_duration_seconds_sum", model="qwen") == pytest.approx(2.3)
    assert value(metrics, "inference_first_token_seconds_count", model="qwen") == 2


def test_histogram_buckets_are_cumulative_and_their_bounds_inclusive() -> None:
    metrics = Metrics(Slots())
    for duration_s in (0.25, 0.2500001, 1000.0):
        finish(metrics, duration_s=duration_s)

    def bucket(bound: str) -> float | None:
        return value(metrics, "control_plane_request_duration_seconds_bucket", endpoint=CHAT, le=bound)

    assert [bucket(bound) for bound in ("0.1", "0.25", "0.5", "600.0", "+Inf")] == [0, 1, 2, 2, 3]
    assert value(metrics, "control_plane_request_duration_seconds_count", endpoint=CHAT) == 3


def test_the_documents_names_are_there() -> None:
    page = render(Metrics(Slots()).slots).decode()
    for name in (
        "control_plane_requests_total",
        "control_plane_request_duration_seconds",
        "control_plane_active_nodes",
        "control_plane_rate_limit_exceeded_total",
        "inference_requests_total",
        "inference_duration_seconds",
        "tokens_processed_total",
        "node_health_score",
        "spot_price_dollars",
    ):
        assert f"# TYPE {name} " in page


def test_every_worker_answers_for_all(tmp_path: Path) -> None:
    first, second = worker(tmp_path, 0), worker(tmp_path, 1)
    finish(first)
    finish(second)
    second.rate_limited("org", "concurrency")
    for stream in (first, second, second):
        stream.stream_opened()
    first.limiter_degraded(True)
    first.nodes({"n1": 0.5, "n2": 1.0}, active=2)
    second.nodes({"n1": 0.4}, active=1)
    assert scrape(first) == scrape(second)
    assert value(first, "control_plane_requests_total", endpoint=CHAT, status="200") == 2
    assert value(first, "control_plane_rate_limit_exceeded_total", layer="org", dimension="concurrency") == 1
    assert value(first, "gateway_streams_in_flight") == 3
    assert value(first, "limits_degraded") == 1
    assert value(first, "control_plane_active_nodes") == 2
    assert value(first, "node_health_score", node="n1") == 0.4


def test_unwell_nodes_are_those_that_are_so_now(tmp_path: Path) -> None:
    first, second = worker(tmp_path, 0), worker(tmp_path, 1)
    first.nodes_unwell({"latency": 2, "errors": 1}, ejected=1)
    second.nodes_unwell({"latency": 2, "errors": 1}, ejected=1)
    assert value(first, "fleet_unwell_nodes", symptom="latency") == 2
    assert value(first, "fleet_ejected_nodes") == 1
    for each in (first, second):
        each.nodes_unwell({"latency": 0, "errors": 0}, ejected=0)
    assert value(first, "fleet_unwell_nodes", symptom="latency") == 0
    assert value(first, "fleet_ejected_nodes") == 0


def test_a_worker_that_comes_back_goes_on_counting(tmp_path: Path) -> None:
    before, other = worker(tmp_path, 0), worker(tmp_path, 1)
    finish(before)
    before.stream_opened()
    # no close: the process was killed
    after = worker(tmp_path, 0)
    assert value(other, "control_plane_requests_total", endpoint=CHAT, status="200") == 1
    finish(after)
    assert value(other, "control_plane_requests_total", endpoint=CHAT, status="200") == 2
    assert value(other, "gateway_streams_in_flight") == 0


def test_what_a_killed_process_counted_is_kept(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from crosslogic.telemetry.metrics import *; from crosslogic.telemetry.slots import Slots\n"
        "metrics = Metrics(Slots(Path(sys.argv[1]), 0, schema=SCHEMA))\n"
        "for _ in range(1000): metrics.retried()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -9
    assert value(worker(tmp_path, 1), "gateway_retries_total") == 1000


def test_counts_of_another_schema_are_not_misread(tmp_path: Path) -> None:
    old = Slots(tmp_path, 0, schema="an older version")
    old.values[old.take("gateway_retries_total", (), 1)] = 5.0
    metrics = worker(tmp_path, 0)
    assert value(metrics, "gateway_retries_total") == 0


def test_invented_model_names_do_not_grow_the_metrics() -> None:
    metrics = Metrics(Slots())
    for number in range(LABEL_VALUES + 50):
        finish(metrics, model=f"model-{number}")
    models = {dict(labels)["model"] for name, labels in scrape(metrics) if name == "inference_requests_total"}
    assert len(models) == LABEL_VALUES + 1
    assert value(metrics, "inference_requests_total", model="other", outcome="completed") == 50


def test_vanished_nodes_leave_and_their_slots_are_used_again(tmp_path: Path) -> None:
    metrics, other = worker(tmp_path, 0), worker(tmp_path, 1)
    for generation in range(500):
        metrics.nodes({f"n{generation}-{node}": 0.5 for node in range(10)}, active=10)
    names = {dict(labels)["node"] for name, labels in scrape(other) if name == "node_health_score"}
    assert names == {f"n499-{node}" for node in range(10)}
    assert metrics.slots.take("one more", (), 1) < 500


def test_what_spot_nodes_cost_is_told_as_long_as_they_are_there() -> None:
    metrics = Metrics(Slots())
    metrics.nodes({"n1": 1.0, "n2": 1.0}, 2, {"n1": 0.74})
    assert value(metrics, "spot_price_dollars", node="n1") == 0.74
    metrics.nodes({"n2": 1.0}, 1)
    assert not [name for name, _ in scrape(metrics) if name == "spot_price_dollars"]


def test_a_full_file_drops_new_series_and_keeps_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "CAPACITY", 2 * slots_module.SCRATCH + 400)
    metrics = Metrics(Slots())
    for number in range(100):
        finish(metrics, model=f"model-{number}")
    assert value(metrics, "inference_requests_total", model="model-0", outcome="completed") == 1
    assert value(metrics, "inference_requests_total", model="model-99", outcome="completed") is None
    assert value(metrics, "control_plane_requests_total", endpoint=CHAT, status="200") == 100


def test_refusals_are_requests_too() -> None:
    metrics = Metrics(Slots())
    metrics.request_refused(CHAT, 401, "invalid_api_key", 0.001)
    metrics.request_refused("/health", 200, "none", 0.001)
    assert value(metrics, "control_plane_rejected_requests_total", reason="invalid_api_key") == 1
    assert value(metrics, "control_plane_rejected_requests_total", reason="none") is None
    assert value(metrics, "control_plane_requests_total", endpoint="/health", status="200") == 1


def test_hostile_labels_stay_labels() -> None:
    metrics = Metrics(Slots())
    finish(metrics, model='a"b\\c\nd')
    assert value(metrics, "inference_requests_total", model='a"b\\c\nd', outcome="completed") == 1


def test_names_are_unique_and_buckets_rise() -> None:
    assert len({metric.name for metric in ALL}) == len(ALL)
    for metric in ALL:
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert all(math.isfinite(bound) for bound in metric.buckets)


def test_the_shared_directory_is_ours_alone_and_goes_away() -> None:
    directory = shared_directory()
    assert directory.stat().st_mode & 0o077 == 0
    worker(directory, 0)
    remove(directory)
    assert not directory.exists()


def test_what_came_into_the_ledger_is_counted_by_model_and_corrections_take_nothing_back() -> None:
    metrics = Metrics(Slots())
    metrics.billed("qwen", {"prompt": 10, "completion": 20, "cached": 0}, 0.5)
    metrics.billed("qwen", {"prompt": -3, "completion": 5}, -0.1)
    assert value(metrics, "billing_tokens_total", model="qwen", kind="prompt") == 10
    assert value(metrics, "billing_tokens_total", model="qwen", kind="completion") == 25
    assert value(metrics, "billing_tokens_total", model="qwen", kind="cached") is None
    assert value(metrics, "billing_cost_total", model="qwen") == 0.5
    for number in range(LABEL_VALUES + 50):
        metrics.billed(f"invented-{number}", {"prompt": 1}, 0.0)
    models = {dict(labels)["model"] for name, labels in scrape(metrics) if name == "billing_tokens_total"}
    assert len(models) <= LABEL_VALUES + 1
