"""The measurements: each drives one running server and writes what it found into its figures.

The CPU time of a server is read while it is idle before and after a run of known work, so that no request is half
inside a window. The load generator runs in this process, on the load cores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import Figures, slope
from bench.load import Outcome, Pool, Request, chat_request, percentile
from bench.probe import cpu_ns, rss_bytes, tree
from bench.processes import http_get
from bench.target import Running

CONNECTIONS = 32
CHUNKS, INTERVAL_MS = 64, 5.0
LATENCY_ROUNDS = 3
WARM_S = 2.0
SPARE_FILES = 600  # for kept-alive connections, logs, and what else a server holds open
WORST_SHARE_OF_SATURATION = 0.7


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    seconds: float
    rounds: int
    rate: float
    streams: int
    soak_requests: int
    file_limit: int


@dataclass
class Bench:
    """One running server under measurement."""

    running: Running
    figures: Figures
    plan: Plan
    upstream: int
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._find_processes()
        self.request = self._request(0)
        self.figures.version = self.running.version
        self.figures.rss_mb_start = rss_bytes(self.pids) / 2**20

    def _request(self, chunks: int) -> Request:
        return chat_request(self.running.port, self.running.headers, stream_chunks=chunks, path=self.running.path)

    def _count(self, outcome: Outcome) -> Outcome:
        self.figures.answered += outcome.done
        self.figures.failed += outcome.failed
        for fault, times in Counter(outcome.faults).most_common(3):
            self.figures.notes.append(f"{times}× {fault}")
        return outcome

    def _shape(self, chunks: int, interval_ms: float) -> None:
        http_get(f"http://127.0.0.1:{self.upstream}/shape?chunks={chunks}&interval_ms={interval_ms}")

    def warm(self) -> None:
        """Fills pools and caches; failures here are told, as they would falsify what follows."""
        with Pool(self.running.port, CONNECTIONS) as pool:
            self._count(pool.closed(self.request, seconds=WARM_S))
        self._find_processes()

    def _find_processes(self) -> None:
        self.pids = tree(self.running.process.pid)
        self.cpu_pids = self.running.cpu_pids or self.pids

    def requests_once(self) -> float:
        """One round at saturation: returns CPU µs a request."""
        with Pool(self.running.port, CONNECTIONS * self.figures.workers) as pool:
            before = cpu_ns(self.cpu_pids)
            outcome = self._count(pool.closed(self.request, seconds=self.plan.seconds))
            spent = cpu_ns(self.cpu_pids) - before
        cost = spent / 1000 / max(1, outcome.done)
        self.figures.cpu_us_per_request_rounds.append(cost)
        self.figures.requests_per_s_rounds.append(outcome.per_second)
        self.figures.busy_rounds.append(spent / max(1, outcome.elapsed_ns) / self.figures.cores)
        return cost

    def chunks_once(self) -> float:
        """One round of 32 connections of streams; returns CPU µs a chunk, a stream's request included."""
        self._shape(CHUNKS, INTERVAL_MS)
        streams = max(1, round(self.plan.seconds / (CHUNKS * INTERVAL_MS / 1000)))
        with Pool(self.running.port, CONNECTIONS) as pool:
            before = cpu_ns(self.cpu_pids)
            outcome = self._count(pool.closed(self._request(CHUNKS), per_connection=streams))
            cost = (cpu_ns(self.cpu_pids) - before) / 1000 / max(1, outcome.done * CHUNKS)
        self.figures.cpu_us_per_chunk_rounds.append(cost)
        return cost

    def saturation(self) -> None:
        """CPU a request and a chunk over all rounds."""
        for number in range(self.plan.rounds):
            request, chunk = self.requests_once(), self.chunks_once()
            self.say(f"round {number + 1}: {request:.1f} µs/request, {chunk:.1f} µs/chunk")
        self.figures.rss_mb_loaded = rss_bytes(self.pids) / 2**20

    def latency(self) -> None:
        """Latency at the fixed rate, and the upstream's own just before, in turn."""
        figures = self.figures
        if (figures.requests_per_s or 0) * WORST_SHARE_OF_SATURATION < self.plan.rate:
            figures.notes.append(f"no latency: {self.plan.rate:.0f} requests/s is beyond it")
            return
        figures.rate = self.plan.rate
        before, done = cpu_ns(self.cpu_pids), 0
        for _ in range(LATENCY_ROUNDS):
            # The upstream alone first, each time, so that a slow moment of the machine tends to be in both.
            direct = self._open(self.upstream, chat_request(self.upstream, {}))
            through = self._count(self._open(self.running.port, self.request))
            done += through.done
            _keep(direct, figures.direct_p50_ms_rounds, figures.direct_p99_ms_rounds)
            _keep(through, figures.p50_ms_rounds, figures.p99_ms_rounds)
        figures.cpu_us_per_request_at_rate = (cpu_ns(self.cpu_pids) - before) / 1000 / max(1, done)
        self.say(f"at {self.plan.rate:.0f}/s: p50 +{figures.p50_added_ms:.2f} ms, p99 +{figures.p99_added_ms:.2f} ms")

    def _open(self, port: int, request: Request) -> Outcome:
        with Pool(port, CONNECTIONS) as pool:
            return pool.open(request, rate=self.plan.rate, seconds=self.plan.seconds)

    def slow_streams(self) -> None:
        """Very many streams at once that hardly flow: memory for each, and whether all end right."""
        figures = self.figures
        # A relaying process holds two connections a stream; this one and the upstreams' hold one each.
        most = (self.plan.file_limit - SPARE_FILES) // 2 * figures.workers
        rate = min(1000.0, 0.3 * (figures.requests_per_s or 1000))
        count = int(min(self.plan.streams, most, rate * 30))
        if count < self.plan.streams:
            why = "the limit of open files" if count == most else "its speed"
            figures.notes.append(f"{count} instead of {self.plan.streams} slow streams because of {why}")
        ramp_s, chunks = count / rate, 6
        self._shape(chunks, max(1000.0, (ramp_s + 5) * 1000 / (chunks - 1)))
        idle = rss_bytes(self.pids)
        seen: list[int] = []

        def measure() -> None:
            seen.append(rss_bytes(tree(self.running.process.pid)))

        with Pool(self.running.port, 0) as pool:
            outcome = self._count(
                pool.slow_streams(
                    self._request(chunks),
                    count=count,
                    rate=rate,
                    patience_s=ramp_s * 3 + 60,
                    when_all_open=measure,
                )
            )
        self._shape(CHUNKS, INTERVAL_MS)
        figures.streams, figures.streams_right, figures.streams_at_once = count, outcome.done, outcome.most_open
        if seen:
            figures.kb_per_stream = (seen[0] - idle) / 1024 / count
            self.say(f"{outcome.done}/{count} slow streams right, {figures.kb_per_stream:.1f} KB each")
        else:
            self.say(f"{outcome.done}/{count} slow streams right, never all at once")

    def soak(self) -> None:
        """Resident memory over very many requests: growth after the first fifth, and its slope."""
        at: list[float] = []
        memory: list[float] = []
        slice_size = max(1000, self.plan.soak_requests // 100)
        done = 0
        with Pool(self.running.port, CONNECTIONS) as pool:
            while done < self.plan.soak_requests:
                outcome = self._count(pool.closed(self.request, count=slice_size))
                done += outcome.done
                at.append(done)
                memory.append(float(rss_bytes(self.pids)))
                if not outcome.done:
                    break
        settled = len(at) // 5
        self.figures.soak_requests = done
        self.figures.soak_growth_mb = (memory[-1] - memory[settled]) / 2**20
        self.figures.soak_kb_per_1000_requests = slope(at[settled:], memory[settled:]) * 1000 / 1024
        self.say(f"{done} requests: memory grew {self.figures.soak_growth_mb:.1f} MB after the first fifth")

    def afterwards(self) -> None:
        """Asks the server whether it has booked what was answered."""
        if self.running.afterwards is not None:
            said = self.running.afterwards(self.figures.answered)
            self.figures.notes.append(said)
            self.say(said)


def _keep(outcome: Outcome, p50_ms: list[float], p99_ms: list[float]) -> None:
    p50_ms.append(percentile(outcome.latencies_ns, 0.5) / 1e6)
    p99_ms.append(percentile(outcome.latencies_ns, 0.99) / 1e6)
