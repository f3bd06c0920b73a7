"""Keeps one engine serving: starts it, looks at it, starts it again when it dies, and measures it once.

Invariant: `state` says what the last look found; whoever waits for `changed` hears of every change of it at once.
"""

import asyncio
import logging
import random
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from crosslogic.agent import backoff
from crosslogic.agent.benchmark import benchmark
from crosslogic.agent.engine import EngineProcess
from crosslogic.agent.model import AgentOptions, Capacity
from crosslogic.fleet.backends.answers import samples
from crosslogic.fleet.backends.known import backend_of
from crosslogic.fleet.fetch import Fetch
from crosslogic.fleet.model import BackendKind, Node, NodeLoad, NodeStatus
from crosslogic.fleet.probe import probe
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.ids import NodeId

LOOK_INTERVAL_S = 1.0
STARTING_INTERVAL_S = 0.2
LOOK_TIMEOUT_S = 4.0
FAILURES_ALLOWED = 3  # looks in a row before an engine counts as not serving: one may be slow
STEADY_S = 60.0  # an engine that ran this long is started again without delay

_log = logging.getLogger(__name__)


class EngineState(msgspec.Struct, frozen=True):
    """What is known of the engine now."""

    serving: bool = False
    kind: BackendKind = BackendKind.OPENAI
    models: tuple[str, ...] = ()
    load: NodeLoad = NodeLoad()
    capacity: Capacity = Capacity()
    version: str = ""
    restarts: int = 0

    @property
    def knows_load(self) -> bool:
        """Whether the engine says how busy it is."""
        return backend_of(self.kind).metrics_path is not None


class EngineKeeper:
    """`process` None: the engine is somebody else's, and only looked at."""

    def __init__(self, options: AgentOptions, fetch: Fetch, process: EngineProcess | None) -> None:
        self._options = options
        self._fetch = fetch
        self._process = process
        self._measured = not options.benchmark
        self._failures = 0
        self._stopping = False
        self.state = EngineState(kind=options.engine.name.kind)
        self.looked_s = float("-inf")  # loop's time at which the look began that `state` is of
        self.changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; the engine runs on. Raises ConfigurationError when it cannot be started at all."""
        try:
            async with asyncio.TaskGroup() as group:
                if self._process is not None:
                    group.create_task(self._keep(self._process))
                group.create_task(self._look_again_and_again())
        except* ConfigurationError as group_of_one:
            raise group_of_one.exceptions[0] from None

    async def stop(self) -> None:
        """End the engine, if it is ours."""
        self._stopping = True
        if self._process is not None:
            await self._process.stop()

    async def engine_samples(self) -> Mapping[str, float]:
        """The engine's own metrics, summed over their labels, without histograms' buckets."""
        path = backend_of(self.state.kind).metrics_path
        if path is None:
            return {}
        engine = self._options.engine
        answer = await self._fetch(engine.base_url + path, api_key=engine.api_key, timeout_s=LOOK_TIMEOUT_S)
        if answer is None or answer.status != 200:
            return {}
        found = samples(answer.body.decode("utf-8", "replace"))
        return {name: sum(values) for name, values in found.items() if not name.endswith("_bucket")}

    async def _keep(self, process: EngineProcess) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        running = process.adopt()
        while True:
            if not running:
                process.start()
            began_s = loop.time()
            await process.wait()
            if self._stopping:
                return
            running = False
            steady = loop.time() - began_s >= STEADY_S
            failures = 1 if steady else failures + 1
            self._set(msgspec.structs.replace(self.state, serving=False, restarts=self.state.restarts + 1))
            pause_s = backoff.pause_s(failures, random.random())
            _log.error("the engine has ended; starting it again in %.1f s", pause_s)
            await asyncio.sleep(pause_s)

    async def _look_again_and_again(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(LOOK_INTERVAL_S if self.state.serving else STARTING_INTERVAL_S)

    async def _look(self) -> None:
        engine, state = self._options.engine, self.state
        began_s = asyncio.get_running_loop().time()
        ended = self._process is not None and self._process.pid is None
        beat = None
        if not ended:
            beat = await probe(
                self._fetch,
                self._as_node(),
                kind=None if engine.url is not None and not state.version else state.kind,
                discover_models=True,
                timeout_s=LOOK_TIMEOUT_S,
            )
        if beat is None:
            self._failures += 1
            if state.serving and (ended or self._failures >= FAILURES_ALLOWED):
                _log.warning("the engine does not serve")
                self._set(msgspec.structs.replace(state, serving=False))
            return
        self._failures = 0
        self.looked_s = began_s
        kind = beat.backend or state.kind
        if not state.serving:
            version = await self._version()
            capacity = state.capacity
            if not self._measured and beat.models:
                model = engine.model if engine.model in beat.models else beat.models[0]
                capacity = await benchmark(engine.base_url, model, engine.api_key)
                self._measured = True
            self._set(
                msgspec.structs.replace(
                    self.state,
                    serving=True,
                    kind=kind,
                    models=beat.models or (),
                    load=beat.load,
                    version=version,
                    capacity=capacity,
                )
            )
            _log.info("the engine serves %s", ", ".join(beat.models or ()))
            return
        changed = beat.models is not None and beat.models != state.models
        self.state = msgspec.structs.replace(state, load=beat.load, models=beat.models or state.models)
        if changed:
            self.changed.set()

    def _set(self, state: EngineState) -> None:
        self.state = state
        self.changed.set()

    def _as_node(self) -> Node:
        """As the probe of the fleet wants it."""
        engine = self._options.engine
        return Node(
            id=NodeId("engine"),
            endpoint_url=engine.base_url,
            models=self.state.models,
            status=NodeStatus.STARTING,
            created_at=datetime.now(UTC),
            backend=self.state.kind,
            api_key=engine.api_key,
        )

    async def _version(self) -> str:
        """vLLM says it at /version, Ollama at /api/version; others nowhere."""
        engine = self._options.engine
        for path in ("/version", "/api/version"):
            answer = await self._fetch(engine.base_url + path, api_key=engine.api_key, timeout_s=LOOK_TIMEOUT_S)
            if answer is not None and answer.status == 200:
                try:
                    said = msgspec.json.decode(answer.body, type=dict[str, object])
                except msgspec.DecodeError:
                    continue
                return str(said.get("version", ""))[:64]
        return "unknown"
