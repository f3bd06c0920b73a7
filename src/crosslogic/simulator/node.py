"""The simulated node: engine, driver, metrics and faults behind one `HttpServer`.

`SimulatedNode.start` makes it listen; tests and `crosslogic up` run it in their own loop, `crosslogic simulate` in
a process of its own. Invariant: every submitted sequence belongs to one job, and a job that is over owns none that
still runs; so running and waiting are zero as soon as no client waits for an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import msgspec

from crosslogic.net.server import HttpServer
from crosslogic.simulator.driver import Driver
from crosslogic.simulator.engine import Engine
from crosslogic.simulator.faults import FaultPlan
from crosslogic.simulator.job import Job
from crosslogic.simulator.metrics import Metrics
from crosslogic.simulator.model import EngineConfig, Refusal, Sequence, State, StepResult
from crosslogic.simulator.prefix import PrefixCache
from crosslogic.simulator.profile import Profile
from crosslogic.simulator.routes import Routes

BLOCK_TOKENS = 16


class NodeOptions(msgspec.Struct, frozen=True):
    """What can be set about a simulated node besides what it simulates."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    speedup: float = 1.0
    seed: int = 0
    api_key: str | None = None
    startup_delay_s: float = 0.0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_queue: int = 1024
    max_model_len: int | None = None  # tokens; the profile's window when not given
    step_noise_sigma: float = 0.05  # lognormal; a real step's spread is of this order
    prefix_caching: bool = True

    def __repr__(self) -> str:
        return f"NodeOptions(host={self.host!r}, port={self.port})"  # the API key stays out of logs


class SimulatedNode:
    """One simulated vLLM server. `on_crash` is called when a simulated crash ends it; by default it just stops."""

    def __init__(self, profile: Profile, options: NodeOptions, on_crash: Callable[[], None] | None = None) -> None:
        self.profile = profile
        self.options = options
        self.metrics = Metrics(profile.model)
        self.faults = FaultPlan(Random(options.seed))
        self.max_model_len = min(options.max_model_len or profile.context_window, profile.context_window)
        self.port = 0
        self.crashed = False
        self.started_s = 0.0
        self._on_crash = on_crash
        self._jobs: set[Job] = set()
        self._choices: dict[Sequence, tuple[Job, int]] = {}
        self._engine = Engine(
            EngineConfig(
                max_num_seqs=options.max_num_seqs,
                max_num_batched_tokens=options.max_num_batched_tokens,
                kv_blocks=profile.kv_tokens // BLOCK_TOKENS,
                block_tokens=BLOCK_TOKENS,
                max_queue=options.max_queue,
                noise_sigma=options.step_noise_sigma,
            ),
            profile.step_time,
            Random(options.seed),
        )
        capacity = self._engine.config.kv_blocks if options.prefix_caching else 0
        self._prefixes = PrefixCache(capacity, BLOCK_TOKENS)
        self._driver: Driver | None = None
        self._closing: asyncio.Task[None] | None = None
        self._server = HttpServer(Routes(self).handle)

    @property
    def url(self) -> str:
        host = self.options.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._driver = Driver(self._engine, self._stepped, self.options.speedup)
        self.started_s = loop.time()
        self.port = await self._server.listen(self.options.host, self.options.port)

    async def close(self, drain_s: float = 0.0) -> None:
        """Stop accepting, let what runs end within `drain_s`, cut the rest."""
        await self._server.close(drain_s)
        if self._driver is not None:
            self._driver.close()

    async def __aenter__(self) -> SimulatedNode:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- for the routes --------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the start-up delay is over: a real engine loads its weights first."""
        waited_s = asyncio.get_running_loop().time() - self.started_s
        return waited_s >= self.options.startup_delay_s and not self.crashed

    def claim_prefix(self, pieces: list[str]) -> tuple[int, int]:
        """How many leading tokens of a prompt the prefix cache holds, and how many it now holds in addition."""
        if not self.options.prefix_caching:
            return 0, 0
        hit = self._prefixes.claim(pieces)
        self.metrics.prefix_queries += len(pieces)
        self.metrics.prefix_hits += hit
        return hit, len(pieces) // BLOCK_TOKENS * BLOCK_TOKENS - hit

    def front_s(self, prompt_tokens: int) -> float:
        """Wall-clock seconds from a request's arrival to its place in the queue."""
        return (self.profile.front_s + self.profile.front_s_per_token * prompt_tokens) / self.options.speedup

    def expect(self, job: Job) -> None:
        """A job is on its way to the queue; a crash takes it along."""
        self._jobs.add(job)

    def submit(self, job: Job) -> Refusal | None:
        """Queue all sequences of a job, or none."""
        assert self._driver is not None
        for index, sequence in enumerate(job.sequences):
            refusal = self._driver.submit(sequence)
            if refusal is not None:
                for earlier in job.sequences[:index]:
                    self._driver.abort(earlier)
                    del self._choices[earlier]
                return refusal
            self._choices[sequence] = (job, index)
        return None

    def ended(self, job: Job) -> None:
        """A job is over: give back what it still holds."""
        assert self._driver is not None
        self._jobs.discard(job)
        aborted = False
        for sequence in job.sequences:
            queued = self._choices.pop(sequence, None) is not None
            aborted |= queued and sequence.state is not State.FINISHED
            self._driver.abort(sequence)
        if aborted:
            self.metrics.finished["abort"] += 1

    def crash(self) -> None:
        """Die as vLLM does when its engine core is killed: every client gets an error, then nothing listens."""
        if self.crashed:
            return
        self.crashed = True
        for job in list(self._jobs):
            job.fail()
        if self._on_crash is not None:
            self._on_crash()
        else:
            self._closing = asyncio.get_running_loop().create_task(self.close(drain_s=0.05))

    def render_metrics(self) -> bytes:
        engine = self._engine
        return self.metrics.render(engine.running, engine.waiting, engine.kv_used_ratio, engine.preemptions)

    # -- for the driver --------------------------------------------------------------------------------------

    def _stepped(self, result: StepResult) -> None:
        """A step's time has passed: hand its tokens to the jobs."""
        now_s = asyncio.get_running_loop().time()
        metrics = self.metrics
        for sequence in result.emitted:
            found = self._choices.get(sequence)
            if found is None:  # its client left during the step
                continue
            job, index = found
            metrics.generation_tokens += 1
            if job.last_token_s is None:
                metrics.first_token.observe(now_s - job.started_s)
                metrics.prompt_tokens += job.usage.prompt_tokens
                metrics.queue.observe((sequence.admitted_s or now_s) - sequence.submitted_s)
            elif len(job.sequences) == 1:
                metrics.between_tokens.observe(now_s - job.last_token_s)
            job.last_token_s = now_s
            if job.token(index):
                metrics.request.observe(now_s - job.started_s)
                metrics.finished[job.finish_reason] += 1
