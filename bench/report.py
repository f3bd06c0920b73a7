"""Writes figures as a Markdown table and as JSON. Pure: figures in, text out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import Figures, scaling

COLUMNS = (
    "server",
    "workers",
    "CPU µs / request",
    "CPU µs / chunk",
    "requests/s",
    "core busy",
    "p50 added ms",
    "p99 added ms",
    "resident MB",
    "slow streams right",
    "KB / slow stream",
)


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _row(one: Figures) -> list[str]:
    streams = "–" if one.streams is None else f"{one.streams_right:,} of {one.streams:,}"
    # Where the server was not the limit, it could do more than was seen.
    limited = "≥ " if one.busy is not None and one.busy < 0.9 else ""
    return [
        f"**{one.name}**" if one.ours else one.name,
        str(one.workers),
        _number(one.cpu_us_per_request, 1),
        _number(one.cpu_us_per_chunk, 1),
        "–" if one.requests_per_s is None else limited + _number(one.requests_per_s),
        "–" if one.busy is None else f"{one.busy:.0%}",
        _number(one.p50_added_ms, 2),
        _number(one.p99_added_ms, 2),
        _number(one.rss_mb_loaded or one.rss_mb_start),
        streams,
        _number(one.kb_per_stream, 1),
    ]


def _table(figures: Sequence[Figures]) -> list[str]:
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *(_row(one) for one in figures)]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _quiet(note: str) -> str:
    return " ".join(note.replace("|", "/").split())[:300]


def _ours(figures: Sequence[Figures]) -> list[str]:
    lines = []
    for one in figures:
        if one.soak_requests is not None:
            lines.append(
                f"- {one.name}: over {one.soak_requests:,} requests resident memory grew by "
                f"{_number(one.soak_growth_mb, 1)} MB after the first fifth "
                f"({_number(one.soak_kb_per_1000_requests, 2)} KB per 1,000 requests)."
            )
    alone = next((one for one in figures if one.ours and one.workers == 1), None)
    both = next((one for one in figures if one.ours and one.workers == 2), None)
    if alone and both:
        by_cpu, by_rate = scaling(alone, both)
        lines.append(
            f"- Two workers: {_number(by_cpu, 2)}× by CPU (2 × {_number(alone.cpu_us_per_request, 1)} / "
            f"{_number(both.cpu_us_per_request, 1)} µs a request), {_number(by_rate, 2)}× by requests/s "
            f"({'each on a core of its own' if both.cores > 1 else 'both on one core, so this cannot show scaling'})."
        )
    return lines


def markdown(figures: Sequence[Figures], about: Mapping[str, Any]) -> str:
    """The whole page."""
    lines = [f"# Measured on {about['date']}", ""]
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in about.items() if name != "date"]
    lines += ["", "How to read it: docs/benchmarks.md.", "", *_table(figures), ""]
    if extra := _ours(figures):
        lines += ["## Memory and workers", "", *extra, ""]
    lines += ["## What was on, and what to know", ""]
    for one in figures:
        said = f"- **{one.name}** {one.version}: {one.what}."
        if one.failed:
            said += f" **{one.failed} answers failed.**"
        lines += [said, *(f"  - {_quiet(note)}" for note in dict.fromkeys(one.notes))]
    return "\n".join(lines) + "\n"


def as_json(figures: Sequence[Figures], about: Mapping[str, Any]) -> str:
    """The same for programs, with every round."""
    derived = ("requests_per_s", "busy", "cpu_us_per_request", "cpu_us_per_chunk", "p50_added_ms", "p99_added_ms")
    rows = [dataclasses.asdict(one) | {name: getattr(one, name) for name in derived} for one in figures]
    return json.dumps({"about": dict(about), "figures": rows}, indent=1, ensure_ascii=False) + "\n"
