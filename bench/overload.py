"""What the queue promises under overload, measured on real processes: `python -m bench.overload`.

Gateway with two workers, control, Redis and two simulated nodes (Llama-3.1-8B on H100, slowed down, 16 places each) on
this machine; the load generator is one process beside them. The nodes are slow, so that they and not the gateway are
the bottleneck. Runs:

    capacity  every place taken: what the nodes do in a second
    calm      the reserved org alone
    storm     the same, and four orgs that together ask for four times the capacity
    flood     eight equal orgs at 1.3 times their share, one of them at ten times that
    weights   three orgs of weights 1, 2 and 4, each asking for more than the whole capacity

Tokens are those of answers that ended after the warm-up. Writes `bench/results/DATE-overload.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import secrets
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.overload_callers import Asked, Caller, Run, drive
from bench.overload_site import MODEL, NODES, PLACES, TIMEOUT_S, WORKERS, Site
from bench.processes import DidNotStart, Processes

RESULTS = Path(__file__).parent / "results"
DRAIN_S = TIMEOUT_S + 10.0
RESERVED_SHARE = 0.2  # of the capacity, in requests
HEADROOM = 1.1  # the org asks for its rate over this: Poisson arrivals have no rate but in the mean


@dataclass
class Row:
    """One promise: what was asked, what was found."""

    promise: str
    asked: str
    found: float
    shown: str
    kept: bool


class Measurement:
    """The runs on one site. `seconds` is the length of each; a quarter of it is warm-up."""

    def __init__(self, site: Site, seconds: float, *, seed: int = 1, drain_s: float = DRAIN_S) -> None:
        self._site = site
        self._seconds = seconds
        self._seed = seed
        self._drain_s = drain_s
        self.per_s = 0.0
        self.runs: list[Run] = []

    def capacity(self) -> float:
        """Requests that the nodes complete in a second, with every place taken."""
        run = self._drive([self._caller("capacity", 4.0 * NODES * PLACES, words=30)])
        done = [a for a in run.asked if a.served and self._counts(a.ended_s)]
        self.per_s = len(done) / (0.75 * self._seconds)
        return self.per_s

    def reserved(self) -> tuple[list[Row], Run]:
        """The reserved org, calm and in a storm."""
        name = _fresh("reserved")
        key = self._org(name, "weight-1")
        asks_per_s = RESERVED_SHARE * self.per_s
        caller = Caller(name, key, asks_per_s)
        calm = self._drive([caller])
        size = statistics.mean(a.tokens for a in calm.of(name) if a.served)
        self._site.reserve(name, round(HEADROOM * asks_per_s * size))
        time.sleep(2.0)
        calm = self._drive([caller])
        stormy = self._drive([caller, *(self._caller("storm", self.per_s) for _ in range(4))])
        asked = [a for a in stormy.of(name) if a.due_s >= 0.25 * self._seconds]
        share = sum(a.served for a in asked) / len(asked)
        before, after = (_percentile(_first_tokens(run.of(name), 0.25 * self._seconds), 0.95) for run in (calm, stormy))
        ratio = after / before
        return [
            Row("reserved org under 4x overload: share of its rate", ">= 99 %", share, f"{share:.1%}", share >= 0.99),
            Row(
                "its p95 to the first token, over unloaded",
                "<= 1.2",
                ratio,
                f"{ratio:.2f} ({before * 1000:.0f} -> {after * 1000:.0f} ms)",
                ratio <= 1.2,
            ),
        ], stormy

    def flood(self) -> tuple[Row, Run]:
        """Eight equal orgs, one of them flooding ten-fold."""
        each_per_s = 1.3 * self.per_s / 8
        callers = [self._caller("equal", each_per_s * (10.0 if n == 0 else 1.0)) for n in range(8)]
        run = self._drive(callers)
        index = jain([float(self._served(run, caller)) for caller in callers])
        return Row(
            "one of eight equal orgs floods 10x: Jain's index", ">= 0.98", index, f"{index:.4f}", index >= 0.98
        ), run

    def weights(self) -> tuple[Row, Run]:
        """Three orgs of different weights, all of whom want everything."""
        callers = {w: self._caller("weight", 1.3 * self.per_s, plan=f"weight-{w}") for w in (1, 2, 4)}
        run = self._drive(list(callers.values()))
        served = {w: self._served(run, caller) for w, caller in callers.items()}
        total = sum(served.values())
        worst = max(abs(served[w] / total / (w / 7) - 1.0) for w in served)
        return Row("weights 1, 2 and 4: farthest from its share", "<= 5 %", worst, f"{worst:.1%}", worst <= 0.05), run

    def endings(self, runs: list[Run]) -> list[Row]:
        """Of all runs under overload: nobody is left waiting, and what is told of the wait is true."""
        asked = [a for run in runs for a in run.asked]
        lost = [a for a in asked if not (a.served or a.shed)]
        late = [a for a in asked if a.served and (a.first_token_s or 0.0) - a.due_s > TIMEOUT_S + 2.0]
        late += [a for a in asked if a.shed and (a.ended_s or 0.0) - a.due_s > TIMEOUT_S + 2.0]
        silent = [a for a in asked if a.status == 429 and not a.retry_after]
        errors = [_error(a) for a in asked if a.served and a.told is not None and a.told[1] > 0.0]
        median = statistics.median(errors) if errors else float("nan")
        shed = sum(a.shed for a in asked)
        return [
            Row(
                "every request served or refused by its deadline",
                "all",
                float(len(lost) + len(late)),
                f"{len(asked) - len(lost) - len(late):,} of {len(asked):,} ({shed:,} refused)",
                not lost and not late,
            ),
            Row("refusals with Retry-After", "all", float(len(silent)), f"{len(silent)} without", not silent),
            Row(
                "estimated wait, median error",
                "<= 30 %",
                median,
                f"{median:.0%} of {len(errors):,} waits",
                median <= 0.30,
            ),
        ]

    def _caller(self, kind: str, per_s: float, *, plan: str = "weight-1", words: int = 30) -> Caller:
        name = _fresh(kind)
        return Caller(name, self._org(name, plan), per_s, prompt_words=words)

    def _org(self, name: str, plan: str) -> str:
        key = self._site.org(name, plan)
        deadline_s = time.monotonic() + 10.0
        for _ in range(4 * WORKERS):  # each worker must know it
            while not self._site.serves(key):
                if time.monotonic() > deadline_s:
                    raise DidNotStart(f"{name} is not served")
                time.sleep(0.05)
        return key

    def _drive(self, callers: list[Caller]) -> Run:
        self._seed += 1
        run = asyncio.run(drive(self._site.port, MODEL, callers, self._seconds, self._seed, self._drain_s))
        self.runs.append(run)
        return run

    def _served(self, run: Run, caller: Caller) -> int:
        return run.tokens(caller.name, 0.25 * self._seconds, self._seconds)

    def _counts(self, ended_s: float | None) -> bool:
        return ended_s is not None and 0.25 * self._seconds <= ended_s < self._seconds


def measure(seconds: float, speedup: float) -> tuple[float, list[Row]]:
    """All runs on a site of its own; (requests a second that the nodes can do, the promises)."""
    with tempfile.TemporaryDirectory() as directory, Processes(Path(directory)) as processes:
        measurement = Measurement(Site(processes, Path(directory), speedup=speedup), seconds)
        per_s = measurement.capacity()
        print(f"capacity: {per_s:.1f} requests/s", flush=True)
        rows, stormy = measurement.reserved()
        _print(rows)
        jain_row, flooded = measurement.flood()
        _print([jain_row])
        weight_row, weighed = measurement.weights()
        _print([weight_row])
        endings = measurement.endings([stormy, flooded, weighed])
        _print(endings)
        return per_s, [*rows, jain_row, weight_row, *endings]


def jain(shares: list[float]) -> float:
    """Jain's fairness index: 1 when all have the same, 1/n when one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)) if any(shares) else 0.0


def page(per_s: float, rows: list[Row], seconds: float, load: float) -> str:
    """The results as Markdown."""
    lines = [f"# Overload, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}", ""]
    lines += [
        f"`python -m bench.overload --seconds {seconds:.0f}` on {os.cpu_count()} cores of {_processor()} with all "
        f"processes, load average {load:.1f} at the start. {WORKERS} workers, Redis, {NODES} simulated nodes with "
        f"{PLACES} places each, which do {per_s:.1f} requests/s.",
        "",
        "| promise | asked | found | kept |",
        "| --- | --- | --- | --- |",
        *(f"| {row.promise} | {row.asked} | {row.shown} | {'yes' if row.kept else 'no'} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run everything, print and write the table; exit code 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each run")
    parser.add_argument("--speedup", type=float, default=0.5, help="of the simulated nodes")
    parser.add_argument("--output", type=Path, default=None, help="file for the table")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    per_s, rows = measure(given.seconds, given.speedup)
    written = page(per_s, rows, given.seconds, load)
    output = given.output or RESULTS / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-overload.md"
    output.write_text(written)
    print(written)
    raise SystemExit(0 if all(row.kept for row in rows) else 1)


def _print(rows: list[Row]) -> None:
    for row in rows:
        print(f"{row.promise}: {row.shown} (asked {row.asked})", flush=True)


def _fresh(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(3)}"


def _first_tokens(asked: list[Asked], after_s: float) -> list[float]:
    return [a.first_token_s - a.due_s for a in asked if a.first_token_s is not None and a.served and a.due_s >= after_s]


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _error(asked: Asked) -> float:
    """How far the first estimate that was told is from the wait that followed, as a share of that wait."""
    assert asked.told is not None
    assert asked.first_token_s is not None
    at_s, told_s = asked.told
    truth_s = max(asked.first_token_s - at_s, 0.05)
    return abs(told_s - truth_s) / truth_s


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
