"""`python -m bench`: measures the gateway and its peers in one run and writes a table.

    python -m bench                    everything, about 15 minutes; peers are installed on the first run
    python -m bench --quick            the same in a minute or two, with rougher figures
    python -m bench --only envoy --only crosslogic
    python -m bench --guard            our cost over the pass-through's; exit 1 when it is over bench/guard.json

The first core serves and is measured; the others make load (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench.crosslogic_peer import OURS
from bench.figures import Figures
from bench.guard import Verdict, judge, thresholds
from bench.load import BrokenAnswer
from bench.peers import PEERS
from bench.probe import Cores, cores, machine, stolen_ticks
from bench.processes import DidNotStart, Processes, free_port, raise_file_limit
from bench.report import as_json, markdown
from bench.scenarios import CHUNKS, INTERVAL_MS, Bench, Plan
from bench.target import Site, Target
from bench.venv import NotInstalled, peers_bin

RESULTS = Path(__file__).parent / "results"
YARDSTICK = PEERS[0]
GUARD_ATTEMPTS = 3


def say(text: str) -> None:
    """One line of progress."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    names = [target.name for target in (*PEERS, *OURS)]
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, rougher figures")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"only this: {', '.join(names)}")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="measure the peers, too")
    parser.add_argument("--seconds", type=float, help="length of one round")
    parser.add_argument("--rounds", type=int, help="rounds of which the median counts")
    parser.add_argument("--rate", type=float, default=1000.0, help="requests/s at which latency is measured")
    parser.add_argument("--guard", action="store_true", help="only compare with the pass-through; exit 1 when over")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the table")
    return parser.parse_args(argv)


def plan(given: argparse.Namespace, file_limit: int) -> Plan:
    """How much to measure, from the command line."""
    quick = given.quick or given.guard
    return Plan(
        seconds=given.seconds or (1.5 if quick else 5.0),
        rounds=given.rounds or (3 if quick else 5),
        rate=given.rate,
        streams=500 if quick else 10_000,
        soak_requests=20_000 if quick else 500_000,
        file_limit=file_limit,
    )


def chosen(given: argparse.Namespace) -> list[Target]:
    """The targets to measure, the yardstick first and, in a whole run, again last."""
    if given.only:
        return [target for target in (*PEERS, *OURS) if target.name in given.only]
    return [*(PEERS if given.peers else PEERS[:1]), *OURS]


class UpstreamGone(Exception):
    """The fake upstream is no more, so nothing can be measured."""


class Session:
    """One run: the upstreams, and each target on them."""

    def __init__(self, plan: Plan, peers: Path | None, processes: Processes, scratch: Path, split: Cores) -> None:
        self.plan, self.peers, self.processes, self.scratch, self.split = plan, peers, processes, scratch, split
        self.upstreams = (free_port(), free_port())
        argv = [sys.executable, "-m", "bench.upstream", "--chunks", str(CHUNKS), "--interval-ms", str(INTERVAL_MS)]
        for port in self.upstreams:
            argv += ["--port", str(port)]
        self.upstream = processes.start("upstream", argv, split.load)
        processes.wait_ready("upstream", self.upstream, f"http://127.0.0.1:{self.upstreams[0]}/health", 15)

    def open(self, target: Target, end: ExitStack) -> Bench:
        """Starts a target and warms it up; `end` stops all that was started for it."""
        if self.upstream.poll() is not None:
            raise UpstreamGone(f"the upstream ended with {self.upstream.returncode}: {self.processes.tail('upstream')}")
        if reason := target.missing():
            raise DidNotStart(reason)
        say(f"{target.name}: starting")
        # Called in reverse order: first the processes end, then what they used is removed.
        inner = end.enter_context(ExitStack())
        processes = end.enter_context(Processes(self.scratch))
        site = Site(processes, self.split, self.upstreams, self.scratch, self.peers, inner)
        running = target.start(site)
        figures = Figures(target.name, target.what, workers=target.workers, cores=running.cores, ours=target.ours)
        figures.notes += running.notes
        os.sched_setaffinity(0, self.split.loads(running.cores))
        bench = Bench(running, figures, self.plan, self.upstreams[0], lambda text: say(f"{target.name}: {text}"))
        bench.warm()
        return bench

    def measure(self, target: Target) -> Figures:
        """All figures of one target; a target that fails is reported with its reason, and the run goes on."""
        figures = Figures(target.name, target.what, workers=target.workers, ours=target.ours)
        try:
            with ExitStack() as end:
                bench = self.open(target, end)
                figures = bench.figures
                bench.saturation()
                bench.latency()
                if target.ours and target.workers == 1:
                    bench.soak()
                bench.slow_streams()
                bench.afterwards()
        except (DidNotStart, FileNotFoundError, OSError, BrokenAnswer) as error:
            say(f"{target.name}: {error}")
            figures.notes.append(f"not measured to the end: {error}")
        return figures

    def guard(self) -> int:
        """Pass-through and ours in turn, round by round; the exit code. What is over is measured again first."""
        with ExitStack() as end:
            yardstick, ours = self.open(YARDSTICK, end), self.open(OURS[0], end)
            for attempt in range(1, GUARD_ATTEMPTS + 1):
                verdicts = self._judge_rounds(yardstick, ours)
                print("\n".join(map(str, verdicts)))
                held = all(verdict.held for verdict in verdicts)
                if held or attempt == GUARD_ATTEMPTS:
                    break
                say(f"over in attempt {attempt} of {GUARD_ATTEMPTS}: once more, for others may have used the machine")
        failed = ours.figures.failed + yardstick.figures.failed
        if failed:
            print(f"{failed} answers failed: {'; '.join(ours.figures.notes + yardstick.figures.notes)}")
        return 0 if held and not failed else 1

    def _judge_rounds(self, yardstick: Bench, ours: Bench) -> list[Verdict]:
        first = len(ours.figures.cpu_us_per_request_rounds)
        for number in range(self.plan.rounds):
            costs = [(one.requests_once(), one.chunks_once()) for one in (yardstick, ours)]
            say(f"round {number + 1}: µs/request, µs/chunk: pass-through {costs[0]}, ours {costs[1]}")
        return judge(ours.figures, yardstick.figures, thresholds(), first)


def about(plan: Plan, split: Cores, started_s: float, stolen: int) -> dict[str, object]:
    """What stands at the head of the page."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        **machine(),
        "server_cores": " ".join(map(str, split.server)),
        "load_cores": " ".join(map(str, split.load)),
        "rounds": f"{plan.rounds} of {plan.seconds:g} s, medians",
        "latency_rate_per_s": plan.rate,
        "took_s": round(time.monotonic() - started_s),
        "stolen_by_hypervisor_s": round((stolen_ticks() - stolen) / ticks_per_s, 1),
    }


def result_name() -> str:
    """`<date>-<machine>`, safe in a file name."""
    cpu = re.sub(r"[^a-z0-9]+", "-", str(machine()["cpu"]).lower()).strip("-")[:40]
    return f"{datetime.now(UTC):%Y-%m-%d}-{cpu}-{machine()['cores']}-cores"


def main(argv: list[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    given = options(argv)
    # SIGTERM ends like Ctrl-C, through every `with`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started_s, stolen, split = time.monotonic(), stolen_ticks(), cores()
    planned, targets = plan(given, raise_file_limit()), chosen(given)
    try:
        with tempfile.TemporaryDirectory(prefix="crosslogic-bench-") as scratch, ExitStack() as stack:
            needs_peers = not given.guard and any(target in PEERS and target.installed for target in targets)
            peers = peers_bin(say) if needs_peers else None
            os.sched_setaffinity(0, split.load)
            processes = stack.enter_context(Processes(Path(scratch)))
            session = Session(planned, peers, processes, Path(scratch), split)
            if given.guard:
                return session.guard()
            measured = [session.measure(target) for target in targets]
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except (DidNotStart, NotInstalled, UpstreamGone) as error:
        say(str(error))
        return 1
    page = about(planned, split, started_s, stolen)
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / f"{result_name()}.md"
    path.write_text(markdown(measured, page))
    path.with_suffix(".json").write_text(as_json(measured, page))
    print(markdown(measured, page))
    say(f"written to {path}")
    return 1 if any(one.failed or one.requests_per_s is None for one in measured if one.ours) else 0


if __name__ == "__main__":
    sys.exit(main())
