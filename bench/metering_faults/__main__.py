"""Is every token billed once, whatever dies? Real processes under faults, held against what callers and nodes saw.

    python -m bench.metering_faults --requests 100000 --seconds 600 --seed 1 --results FILE
    python -m bench.metering_faults --weigh 'Redis FLUSHALL=5' --weigh 'PostgreSQL slow=0' ...
    python -m bench.metering_faults --table FILE

Two controls, a gateway with two workers, five simulated nodes, PostgreSQL and Redis, each of them killed, stopped,
cut off or left without room, several at a time, while callers ask, break off, read slowly or hang. It ends after so
many requests or seconds, whichever comes first. Afterwards each request is judged: lost, duplicate, mis-counted or
mis-priced. Exit code 0: none; 1: some; 2: the run is void and says nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench.metering_faults.callers import Callers
from bench.metering_faults.disks import own_mounts
from bench.metering_faults.faults import Faults
from bench.metering_faults.judge import Verdict, judge
from bench.metering_faults.report import append, bound, say, table
from bench.metering_faults.site import Site, Void

PROGRESS_S = 10.0
FLOWING = 20.0  # whole answers a second: so the gateway works, and may be killed in the midst of it
DUE_S = 10.0  # an answer that was whole so long ago is looked up


class Lookup:
    """While it runs: are answers that were whole in the ledger, with their tokens? Bounded, for what is found goes."""

    def __init__(self, site: Site, callers: Callers) -> None:
        self._site, self._callers = site, callers
        self.wrong = 0
        self.owed = 0  # older than `DUE_S` and not there yet: the database may be away
        self._waiting: dict[str, tuple[int, int]] = {}

    async def look(self) -> None:
        recent = self._callers.recent
        while recent and recent[0][0] < time.monotonic() - DUE_S:
            seen = recent.popleft()[1]
            if seen.usage is not None:
                self._waiting[seen.request_id] = seen.usage["prompt_tokens"], seen.usage["completion_tokens"]
        try:
            conn = await asyncpg.connect(self._site.postgres.url, timeout=2, command_timeout=5)
            try:
                query = "SELECT request_id, sum(prompt_tokens), sum(completion_tokens) FROM usage_records "
                rows = await conn.fetch(query + "WHERE request_id = ANY($1) GROUP BY 1", list(self._waiting))
            finally:
                await conn.close(timeout=1)
        except Exception:  # it may be away, or go in the midst of this
            rows = []
        for request_id, prompt, completion in rows:
            self.wrong += self._waiting.pop(request_id) != (prompt, completion)
        self.owed = len(self._waiting)


async def under_faults(site: Site, callers: Callers, faults: Faults, asked: argparse.Namespace) -> None:
    lookup = Lookup(site, callers)
    began = time.monotonic()
    calling = asyncio.create_task(callers.run())
    watching = asyncio.create_task(callers.watch())
    told_at, told = began, 0
    while time.monotonic() - began < asked.seconds and callers.answered < asked.requests and not calling.done():
        await asyncio.sleep(0.25)
        now = time.monotonic()
        if now - told_at >= PROGRESS_S:
            await lookup.look()
            rate = (callers.asked - told) / (now - told_at)
            told_at, told = now, callers.asked
            say(
                f"{now - began:4.0f} s: {callers.asked:,} requests ({rate:.0f}/s), {callers.whole:,} whole, "
                f"{callers.broken:,} broken off, {sum(callers.refused.values()):,} refused, {callers.unreached:,} not "
                f"reached; {faults.done.total() + site.door.lost.total():,} faults; "
                f"discrepancies so far {lookup.wrong}, not in the ledger yet {lookup.owed:,}"
            )
    watching.cancel()
    callers.stop()
    await calling


def run_leg(asked: argparse.Namespace, directory: Path, *, mounts: bool) -> tuple[Verdict, dict[str, Any]]:
    with Site(directory, mounts=mounts) as site:
        seen = directory / "seen"
        callers = Callers(site.port, site.keys, asked.callers, asked.rate, asked.seed, seen, site.deaths)
        faults = Faults(site, asked.seed, asked.pace, lambda: callers.rate_now >= FLOWING, dict(asked.weigh))
        at, began = datetime.now(UTC), time.monotonic()
        load = os.getloadavg()[0]
        if not site.clock.can_jump:
            say("libfaketime is not installed: clocks do not jump")
        faults.start()
        try:
            uvloop.run(under_faults(site, callers, faults, asked))
        except Exception as error:
            say(f"the callers ended early, what they saw is judged: {type(error).__name__}: {error}")
        finally:
            faults.stop()
            callers.close()
        seconds = time.monotonic() - began
        site.until("all serve again", site.serves)
        verdict = judge(site, callers.path)
        done = dict((faults.done + _lost(site)).most_common())
        leg = {
            "at": at.strftime("%Y-%m-%d %H:%M"),
            "seed": asked.seed,
            "pace": asked.pace,
            "rate": asked.rate,
            "weighed": dict(asked.weigh),
            "seconds": round(seconds, 1),
            "cores": os.cpu_count(),
            "load_at_start": round(load, 1),
            "judged": verdict.figures.pop("judged"),
            "answered": callers.answered,
            "whole": callers.whole,
            "broken": callers.broken,
            "refused": {str(status): count for status, count in callers.refused.items()},
            "unreached": callers.unreached,
            "faults": done,
            "callers": dict(callers.behaved.most_common()),
            "restarts": dict(site.restarts),
            "outcomes": verdict.outcomes,
            "figures": verdict.figures,
            "discrepancies": verdict.discrepancies,
        }
        for words, count in site.errors().most_common(12):
            say(f"logged as an error, {count} times: {words}")
        for words, count in callers.troubles.most_common(6):
            say(f"not reached, {count} times: {words}")
        for words, count in callers.words.most_common(8):
            say(f"refused, {count} times: {words}")
        return verdict, leg


def _lost(site: Site) -> Any:
    return type(site.door.lost)({f"COMMIT's answer lost: {table}": n for table, n in site.door.lost.items()})


def _factor(told: str) -> tuple[str, int]:
    kind, _, times = told.rpartition("=")
    if not kind or not times.isdecimal():
        raise argparse.ArgumentTypeError(f"{told!r} is not KIND=N")
    return kind, int(times)


def tell(leg: dict[str, Any], verdict: Verdict) -> None:
    say(f"{sum(leg['faults'].values())} faults in {leg['seconds']:.0f} s: {leg['faults']}")
    say(f"callers: {leg['callers']}; started again by the supervisor: {leg['restarts']}")
    say(
        f"{leg['judged']:,} requests, {leg['answered']:,} answered, {leg['whole']:,} of them whole; "
        f"refused {leg['refused']}, not reached {leg['unreached']:,}"
    )
    say("ledger: " + ", ".join(f"{count:,} {how}" for how, count in verdict.outcomes.items()))
    for name, value in verdict.figures.items():
        say(f"    {name}: {value:,}")
    for problem in verdict.problems:
        say(f"WRONG: {problem}")
    counts = ", ".join(f"{kind} {count}" for kind, count in verdict.discrepancies.items())
    say(f"{verdict.total} discrepancies in {leg['judged']:,} requests ({counts})")
    say(f"so their rate is below {bound(leg['judged'], verdict.total):.2e} at 95 % confidence")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000_000, help="end after so many answers")
    parser.add_argument("--seconds", type=float, default=600.0, help="end after so long")
    parser.add_argument("--rate", type=float, default=450.0, help="at most so many requests a second")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--pace", type=float, default=1.0, help="2: twice as many faults")
    parser.add_argument(
        "--weigh", type=_factor, action="append", default=[], metavar="KIND=N",
        help="faults with this in their names N times as often, 0: never; the others as often as they were",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, help="append the leg to this file")
    parser.add_argument("--table", type=Path, help="run nothing; print the table of a results file")
    asked = parser.parse_args()
    if asked.table is not None:
        say(table(asked.table))
        return 0
    mounts = own_mounts()
    if not mounts:
        say("mounts are not permitted: faults of a full disk are left out")
    with tempfile.TemporaryDirectory(prefix="crosslogic-faults-", ignore_cleanup_errors=True) as directory:
        try:
            verdict, leg = run_leg(asked, Path(directory), mounts=mounts)
        except Void as void:
            say(f"VOID: {void}")
            return 2
        except Exception as error:
            say(f"VOID: it ended before it was judged: {type(error).__name__}: {error}")
            raise
    if asked.results is not None:
        append(asked.results, leg)
    tell(leg, verdict)
    return 1 if verdict.total else 0


if __name__ == "__main__":
    sys.exit(main())
