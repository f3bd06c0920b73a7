"""What was promised of a chaotic day, and whether it was kept. Pure but for reading the ledger."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos.callers import Seen

MAX_DELAY_S = 0.2  # that a cut may add to the new node's first-token latency, at the 95th percentile
LEAST_ANSWERED = 0.999


@dataclass(frozen=True)
class Promise:
    """`least_answered` of all requests; `same_text`: greedy answers are those of the calm day, byte by byte, which a
    real engine does not give even when nothing befalls it. `prompt`: nor does it count a prompt that it continued as
    it counted the first."""

    least_answered: float = LEAST_ANSWERED
    same_text: bool = True
    same_prompt: bool = True
    delay: bool = True


@dataclass
class Verdict:
    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def ledger(path: Path, expected: int) -> list[dict[str, Any]]:
    """All rows, once as many have come as were asked for, or no more come."""
    rows: list[dict[str, Any]] = []
    for _ in range(50):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            database.row_factory = sqlite3.Row
            rows = [dict(row) for row in database.execute("SELECT * FROM usage_records")]
        database.close()
        if len(rows) >= expected:
            break
        time.sleep(0.1)
    return rows


def judge(seen: list[Seen], rows: list[dict[str, Any]], calm: list[float], promise: Promise) -> Verdict:
    by_id = {row["request_id"]: row for row in rows}
    answered = [one for one in seen if one.answered]
    rescued = [one for one in answered if by_id.get(one.request_id, {}).get("attempts", 1) > 1]
    lies = [one for one in answered if _lies(one, promise)]
    missing = [one for one in seen if one.status == 200 and one.request_id not in by_id]
    wrong_usage = [one for one in answered if one.request_id in by_id and _misses(one, by_id[one.request_id], promise)]
    share = len(answered) / max(1, len(seen))
    gaps = [one.gap_s for one in rescued if one.gap_s > 0]
    first = [one.first_s for one in answered if one.first_s is not None and one not in rescued]
    lines = [
        f"| requests | {len(seen)} |",
        f"| answered whole | {len(answered)} ({100 * share:.2f} %) |",
        f"| of these, more than one node worked on | {len(rescued)} |",
        f"| looked whole and were not | {len(lies)} |",
        f"| rows missing, doubled | {len(missing)}, {len(rows) - len(by_id)} |",
        f"| rows with other tokens than they should have | {len(wrong_usage)} |",
        f"| first token under load, p50 and p95 | {_both(first)} |",
        f"| longest gap of a rescued answer, p50 and p95 | {_both(gaps)} |",
        f"| longest gap on a calm day, p95 | {1000 * percentile(calm, 0.95):.0f} ms |",
    ]
    wrong = []
    if lies:
        wrong.append("an answer looked whole and was not")
    if missing or len(rows) != len(by_id):
        wrong.append("the ledger misses or doubles a row")
    if wrong_usage:
        example = wrong_usage[0]
        wrong.append(f"usage differs: {by_id[example.request_id]}, seen {example.usage}, known {example.known.usage}")
    if share < promise.least_answered:
        failed = Counter((one.status, one.error) for one in seen if not one.answered)
        wrong.append(f"only {100 * share:.2f} % were answered: {dict(failed)}")
    if promise.delay and gaps and percentile(gaps, 0.95) > percentile(first, 0.95) + MAX_DELAY_S:
        wrong.append("cuts delay answers for too long")
    return Verdict(lines, wrong)


def _lies(seen: Seen, promise: Promise) -> bool:
    """Whether an answer that looks whole is not, or is not one."""
    if len(seen.names) != 1 or seen.usage is None or seen.usage[1] != seen.known.usage[1]:
        return True
    return promise.same_text and seen.text != seen.known.text


def _misses(seen: Seen, row: dict[str, Any], promise: Promise) -> bool:
    billed = row["prompt_tokens"], row["completion_tokens"]
    if promise.same_prompt and billed != seen.known.usage:
        return True
    return billed != seen.usage


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def _both(seconds: list[float]) -> str:
    return f"{1000 * percentile(seconds, 0.5):.0f} and {1000 * percentile(seconds, 0.95):.0f} ms" if seconds else "–"
