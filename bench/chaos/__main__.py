"""Breaks nodes under load and holds every answer against that of a calm day.

    python -m bench.chaos --count 100                  kills a hundred nodes (SIGKILL), stops half as many (SIGSTOP)
    python -m bench.chaos --notices 50 --drains 50     rented machines with agents: spot notice then death, and drain
    python -m bench.chaos --engine vllm …              real vLLM servers instead of simulated ones

Real processes throughout, and callers that stream greedy answers, so that each text is known beforehand. Never are so
many nodes broken that none is left. No answer may be truncated and yet look whole, or be missing or doubled in the
ledger; where the end of a node is announced, none may be lost. Exit code 1 when something is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from bench.chaos.callers import Callers, requests
from bench.chaos.engines import SIMULATED, Engine, engine_named
from bench.chaos.rack import Rack
from bench.chaos.rented import Rented
from bench.chaos.verdict import Promise, Verdict, judge, ledger
from bench.processes import Processes


def run(
    *,
    kills: int = 0,
    stops: int = 0,
    notices: int = 0,
    drains: int = 0,
    nodes: int = 5,
    callers: int = 12,
    seed: int = 1,
    engine: Engine = SIMULATED,
) -> int:
    """First what nobody announces, then what is announced; the exit code."""
    verdicts = []
    if kills or stops:
        plan = ["kill"] * kills + ["stop"] * stops
        promise = Promise(same_text=engine.exact, same_prompt=engine.exact, delay=engine.exact and not stops)
        verdicts.append(_day(Rack, plan, promise, nodes, callers, seed, engine))
    if notices or drains:
        plan = ["notice"] * notices + ["drain"] * drains
        promise = Promise(1.0, engine.exact, engine.exact, delay=False)
        verdicts.append(_day(Rented, plan, promise, nodes, callers, seed, engine))
    for verdict in verdicts:
        print("\n".join(verdict.lines), end="\n\n")
    for sentence in (sentence for verdict in verdicts for sentence in verdict.wrong):
        print(f"WRONG: {sentence}", file=sys.stderr)
    return 1 if any(verdict.wrong for verdict in verdicts) else 0


def _day(
    kind: type[Rack] | type[Rented],
    plan: list[str],
    promise: Promise,
    nodes: int,
    callers: int,
    seed: int,
    engine: Engine,
) -> Verdict:
    rng = random.Random(seed)
    rng.shuffle(plan)
    with tempfile.TemporaryDirectory(prefix="crosslogic-chaos-") as name, Processes(Path(name)) as processes:
        site = kind(processes, Path(name), engine, nodes, rng)
        try:
            site.open()
            asking = Callers(site.port, site.key, requests(engine.model, longest=engine.longest))
            calm, seconds = asyncio.run(_break(site, asking, plan, callers))
            rows = ledger(site.database, len(calm) + len(asking.seen))
            verdict = judge(asking.seen, rows, calm, promise)
            verdict.lines[:0] = [f"| {what} | {count} in {seconds:.0f} s |" for what, count in site.done.items()]
            verdict.lines += [f"| {line.replace(' ', ' | ')} |" for line in site.rescues()]
            if isinstance(site, Rented):
                verdict.wrong += site.late
        finally:
            if isinstance(site, Rented):
                site.close()
    return verdict


async def _break(site: Rack | Rented, asking: Callers, plan: list[str], callers: int) -> tuple[list[float], float]:
    """Longest gaps of a calm day, and how long the chaos took."""
    calm = await asking.calm()
    began_s = time.monotonic()

    async def chaos() -> None:
        for what in plan:
            await site.strike(what)
        await site.calm_down()

    await asking.during(callers, chaos)
    return calm, time.monotonic() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=None, help="nodes to kill")
    parser.add_argument("--stops", type=int, default=None, help="nodes to stop; half as many as killed when not given")
    parser.add_argument("--notices", type=int, default=0, help="machines that get a spot notice, and then die")
    parser.add_argument("--drains", type=int, default=0, help="machines that are drained")
    parser.add_argument("--engine", choices=["simulate", "vllm"], default="simulate")
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--callers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    announced = bool(given.notices or given.drains)
    kills = given.count if given.count is not None else (0 if announced or given.stops else 100)
    sys.exit(
        run(
            kills=kills,
            stops=kills // 2 if given.stops is None else given.stops,
            notices=given.notices,
            drains=given.drains,
            nodes=given.nodes,
            callers=given.callers,
            seed=given.seed,
            engine=engine_named(given.engine),
        )
    )


if __name__ == "__main__":
    main()
