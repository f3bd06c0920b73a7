"""A recommendation as one HTML page to hand to whoever pays: candidates, cost, latency against load, reasons.

Pure. Invariant: the page is self-contained (inline SVG and styles, no script, nothing that is fetched), and every text
in it is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import isfinite

import msgspec

from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.capacity.surface import at_rate, curve
from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.ranking.model import Figure, Option, Recommendation
from crosslogic.compass.ranking.planner import Planner
from crosslogic.compass.ranking.sizing import traffic_of
from crosslogic.kernel.money import PUSD_PER_USD

MOST_CURVES = 6
_POINTS = 40
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 460.0, 240.0, 56.0, 34.0
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")
_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.3em .6em;border-bottom:1px solid #ddd;text-align:left}"
    "td.n,th.n{text-align:right}figure{display:inline-block;margin:0 1em 1em 0}figcaption{font-weight:600}"
    "svg{background:#fafafa}.k{display:inline-block;width:.8em;height:.8em;margin-right:.4em}"
)


class Line(msgspec.Struct, frozen=True):
    """One candidate's curve: requests a second of the whole deployment, and milliseconds."""

    label: str
    points: tuple[tuple[float, float], ...]


def lines(found: Recommendation, planner: Planner, figure: str) -> list[Line]:
    """`figure` is `ttft_p95`, `itl_p95` or `e2e_p95`. With all needed replicas up, from little load to the knee."""
    made = []
    spec = found.specification
    for option in found.options[:MOST_CURVES]:
        replicas = option.sizing.needed
        limits = ReplicaLimits(option.sizing.kv_tokens)
        line = curve(planner.model(option.candidate, spec), limits, traffic_of(spec.traffic, replicas))
        highest = min(
            float(line.rates[-1]), 1.3 * max(option.sizing.rate_per_replica, spec.traffic.peak_qps / replicas)
        )
        points = []
        for step in range(1, _POINTS + 1):
            rate = highest * step / _POINTS
            value = at_rate(getattr(line, figure), line, rate) * 1e3
            if isfinite(value):
                points.append((rate * replicas, value))
        made.append(Line(_name(option), tuple(points)))
    return made


def report(found: Recommendation, planner: Planner, title: str = "") -> str:
    """The whole page."""
    spec = found.specification
    heading = title or spec.description or spec.use_case.value.replace("_", " ")
    slo = spec.slo
    figures = (
        ("Time to first token, p95", "ttft_p95", slo.ttft_p95_ms),
        ("Time between tokens, p95", "itl_p95", slo.itl_p95_ms),
        ("End to end, p95", "e2e_p95", None if slo.e2e_output_tokens else slo.e2e_p95_ms),
    )
    charts = [
        _chart(name, lines(found, planner, figure), limit, spec.traffic.peak_qps) for name, figure, limit in figures
    ]
    key = "".join(
        f'<span><span class="k" style="background:{colour}"></span>{escape(_name(option))}</span> '
        for option, colour in zip(found.options[:MOST_CURVES], _COLOURS, strict=False)
    )
    body = [
        f"<h1>{escape(heading)}</h1>",
        f"<p>{spec.traffic.mean_qps:,.2f} requests/s on average, {spec.traffic.peak_qps:,.2f} at the peak; priority: "
        f"{escape(found.priority.value)}; {found.considered} candidates considered, "
        f"{len(found.rejections)} rejected.</p>",
        _table(found.options),
        "<h2>Latency against load</h2>",
        "<p>With the replicas that the peak needs. The dashed line is the target, the dotted one the peak.</p>",
        f"<p>{key}</p>",
        *charts,
        "<h2>Cost a month</h2>",
        _bars(found.options),
        "<h2>Why</h2>",
        _list(
            (*(found.best.reasons if found.best else ()), *(found.best.caveats if found.best else ()), *found.advice)
        ),
        "<h2>Rejected</h2>",
        _list(tuple(f"{each.candidate.id}: {each.reason}" for each in found.rejections[:15])),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _table(options: Sequence[Option]) -> str:
    if not options:
        return "<p>Nothing meets all of this.</p>"
    head = "".join(
        f"<th>{each}</th>"
        for each in (
            "Candidate",
            "Replicas",
            "GPUs",
            "USD/hour",
            "USD/month",
            "USD/1M tokens",
            "TTFT p95",
            "ITL p95",
            "E2E p95",
            "Likely",
            "Evidence",
        )
    )
    rows = []
    for option in options:
        cost, forecast = option.cost, option.forecast
        tokens = cost.per_million_tokens_pusd
        cells = (
            _name(option) + (" (Pareto)" if option.pareto else ""),
            f"{option.sizing.replicas} ({option.sizing.spare} spare)",
            str(cost.gpus),
            f"{cost.per_hour_pusd / PUSD_PER_USD:,.2f}",
            f"{cost.per_month_pusd / PUSD_PER_USD:,.0f}" + (" (stale price)" if cost.stale else ""),
            "–" if tokens is None else f"{tokens / PUSD_PER_USD:,.3f}",
            _figure(forecast.ttft_p95),
            _figure(forecast.itl_p95),
            _figure(forecast.e2e_p95),
            f"{forecast.likely:.0%}",
            forecast.ttft_p95.evidence.value,
        )
        rows.append("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in cells) + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _chart(title: str, drawn: Sequence[Line], limit: float | None, peak: float) -> str:
    every = [point for line in drawn for point in line.points]
    if not every:
        return ""
    right = max(max(x for x, _ in every), peak) * 1.02
    top = min(max(y for _, y in every), (limit or float("inf")) * 3) * 1.05

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + x / right * (_WIDTH - _LEFT - 8)
        down = _HEIGHT - _BOTTOM - min(y / top, 1.0) * (_HEIGHT - _BOTTOM - 10)
        return across, down

    def path(*points: tuple[float, float]) -> str:
        return " ".join(f"{across:.1f},{down:.1f}" for across, down in (at(*point) for point in points))

    axes = path((0, top), (0, 0), (right, 0))
    parts = [f'<polyline fill="none" stroke="#888" points="{axes}"/>']
    parts += [_label(at(0, top * share), f"{top * share:,.0f} ms", "end") for share in (0.5, 1.0)]
    parts += [_label(at(right * share, -top * 0.08), f"{right * share:,.3g}/s", "middle") for share in (0.5, 0.95)]
    marks = [("1 4", path((peak, 0), (peak, top)))]
    if limit is not None:
        marks.append(("6 4", path((0, limit), (right, limit))))
    parts += [
        f'<polyline fill="none" stroke="#444" stroke-dasharray="{dashes}" points="{points}"/>'
        for dashes, points in marks
    ]
    for line, colour in zip(drawn, _COLOURS, strict=False):
        points = path(*(point for point in line.points if point[1] <= top))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
    box = f'width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}"'
    svg = f'<svg role="img" {box}>{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def _label(place: tuple[float, float], text: str, anchor: str) -> str:
    left, down = place[0] - (4 if anchor == "end" else 0), place[1] + 4
    return f'<text x="{left:.1f}" y="{down:.1f}" font-size="10" text-anchor="{anchor}">{escape(text)}</text>'


def _bars(options: Sequence[Option]) -> str:
    highest = max((option.cost.per_month_pusd for option in options), default=0)
    if not highest:
        return "<p>No cost is known.</p>"
    rows = []
    for number, option in enumerate(options):
        width = 380 * option.cost.per_month_pusd / highest
        y = 22 * number
        amount = f"{option.cost.per_month_pusd / PUSD_PER_USD:,.0f} USD"
        rows.append(
            f'<text x="0" y="{y + 14}" font-size="11">{escape(_name(option))}</text>'
            f'<rect x="330" y="{y + 3}" width="{width:.1f}" height="14" fill="{_COLOURS[number % len(_COLOURS)]}"/>'
            f'<text x="{336 + width:.1f}" y="{y + 14}" font-size="11">{escape(amount)}</text>'
        )
    height = 22 * len(options) + 4
    return f'<svg role="img" width="820" height="{height}" viewBox="0 0 820 {height}">{"".join(rows)}</svg>'


def _list(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(each)}</li>" for each in texts) + "</ul>" if texts else "<p>Nothing.</p>"


def _name(option: Option) -> str:
    candidate = option.candidate
    gpu = find_gpu(candidate.gpu)
    return f"{candidate.model} on {candidate.tp}x {gpu.name if gpu else candidate.gpu}, {candidate.precision}"


def _figure(figure: Figure) -> str:
    return f"{figure.value:,.0f} ms ({figure.low:,.0f}–{figure.high:,.0f})"
