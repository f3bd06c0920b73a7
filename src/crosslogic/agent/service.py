"""One node's agent: everything that has to go on at the same time, and the order in which it ends.

    joining -> starting -> active -> draining -> gone

Invariants: the engine serves whether or not control answers; a node that drains is never registered again by its
agent; the agent ends only when nothing runs on the engine any more, or the time for that is over.
"""

import asyncio
import contextlib
import logging
import random
import shutil
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from crosslogic.agent import backoff, messages, upgrade
from crosslogic.agent.hardware import Machine
from crosslogic.agent.keeper import EngineKeeper
from crosslogic.agent.link import Away, Link, Refused
from crosslogic.agent.log_stream import LogStream
from crosslogic.agent.metadata import Metadata
from crosslogic.agent.model import AgentOptions, Place, SpotNotice
from crosslogic.agent.papers import Papers, new_key, write_papers
from crosslogic.agent.tunnel import Tunnel
from crosslogic.fleet.model import NodeStatus
from crosslogic.fleet.wire import node_agent_pb2 as wire
from crosslogic.kernel.errors import NotFound

RENEWAL_CHECK_S = 60.0
SETTLE_S = 2.0  # requests that were on their way when the drain began arrive within this
_AWAY = (Away, NotFound)

_log = logging.getLogger(__name__)


class Ending(msgspec.Struct, frozen=True):
    """How the agent ended, and whether it is to start itself anew."""

    code: int = 0
    start_anew: bool = False


class Agent:
    """`run` returns when the node has left the fleet."""

    def __init__(
        self,
        options: AgentOptions,
        papers: Papers,
        keeper: EngineKeeper,
        metadata: Metadata,
        place: Place,
        endpoint_url: str,
        logs: LogStream,
    ) -> None:
        self._options = options
        self._papers = papers
        self._keeper = keeper
        self._metadata = metadata
        self._place = place
        self._endpoint_url = endpoint_url
        self._logs = logs
        self._machine = Machine()
        self._link = Link(papers)
        self._tunnel: Tunnel | None = None
        if options.gateways:
            self._tunnel = Tunnel(lambda: self._papers, options.gateways, options.engine.base_url, keeper.changed.set)
        self._interval_s = 5.0
        self._registered: bytes | None = None  # what control has
        self._leaving: asyncio.Task[None] | None = None
        self._draining: str | None = None  # why
        self._spot = False
        self._rebalance = asyncio.Event()  # the cloud recommends to leave this machine
        self._upgrading: asyncio.Task[None] | None = None
        self._failed_versions: set[str] = set()
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._failing = False

    async def run(self) -> Ending:
        """Until drained, refused or upgraded."""
        work: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._keeper.run,
            self._report,
            self._measure,
            self._renew,
            self._stream_logs,
        ]
        if self._place.spot or self._options.spot:
            work.append(self._watch_for_notices)
        if self._tunnel is not None:
            work.append(self._tunnel.run)
        tasks = [asyncio.create_task(each()) for each in work]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            return await self._ending
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(Exception):
                await self._link.close()

    def drain(self, why: str) -> None:
        """Take nothing new; end when what runs is done. Harmless to repeat."""
        if self._draining is not None:
            return
        self._draining = why
        _log.info("draining: %s", why)
        self._keeper.changed.set()
        self._leaving = asyncio.ensure_future(self._leave(why))

    # what goes on at the same time

    async def _report(self) -> None:
        """Register, then heartbeats, for ever; at once when the engine's state changes."""
        failures = 0
        while True:
            self._keeper.changed.clear()
            try:
                await self._report_once()
            except Refused as error:
                _log.error("control refuses: %s", error)
                if error.revoked:
                    self._end(Ending(2))
                    return
                failures += 1
            except _AWAY as error:
                failures += 1
                if not self._failing:
                    self._failing = True
                    _log.warning("%s; serving on, and trying again", error)
            else:
                failures = 0
                if self._failing:
                    self._failing = False
                    _log.info("control answers again")
            # Never longer than between two heartbeats: a control that is back hears of every node before it would take
            # the silence for a death.
            pause_s = self._interval_s
            if failures:
                pause_s = backoff.pause_s(failures, random.random(), longest_s=self._interval_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._keeper.changed.wait()
                    if failures:  # a change does not excuse from waiting for who is away
                        await asyncio.sleep(backoff.FIRST_S)

    async def _report_once(self) -> None:
        if self._draining is None:
            wanted = self._registration()
            if self._registered is None or _lasting(wanted) != self._registered:
                self._heard(await self._link.register(wanted))
                self._registered = _lasting(wanted)
                return
        try:
            state = await self._link.heartbeat(
                messages.heartbeat(self._status(), self._keeper.state.load, self._machine.read().vram_free_mb)
            )
        except NotFound:
            if self._draining is not None:
                return
            self._registered = None
            self._keeper.changed.set()
            return
        self._heard(state)

    def _heard(self, state: Any) -> None:
        if state.heartbeat_interval_s > 0:
            self._interval_s = min(60.0, max(0.1, state.heartbeat_interval_s))
        if state.status == wire.DRAINING and self._draining is None:
            self.drain("control says so")
        wanted = state.wanted_version
        if wanted and wanted != version("crosslogic") and wanted not in self._failed_versions and not self._upgrading:
            self._upgrading = asyncio.ensure_future(self._upgrade(wanted))

    async def _measure(self) -> None:
        told = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.metrics_interval_s):
                    await (asyncio.Event() if told else self._rebalance).wait()
            told = self._rebalance.is_set()
            state = self._keeper.state
            message = messages.metrics(
                load=state.load,
                hardware=self._machine.read(),
                capacity=state.capacity,
                engine_version=state.version,
                engine_restarts=state.restarts,
                disk_free_mb=shutil.disk_usage(self._options.data_dir).free // 2**20,
                engine=await self._keeper.engine_samples(),
                oom_events=self._logs.oom_events,
                rebalance_recommended=told,
            )
            with contextlib.suppress(*_AWAY, Refused):
                await self._link.metrics(message)

    async def _watch_for_notices(self) -> None:
        while True:
            notice = await self._metadata.notice(self._place.cloud)
            if notice is not None:
                break
            if not self._rebalance.is_set() and await self._metadata.rebalance_recommended(self._place.cloud):
                _log.warning("the cloud recommends to leave this machine; control is told")
                self._rebalance.set()
            await asyncio.sleep(self._options.spot_poll_s)
        _log.warning("the cloud takes this machine away (%s)", notice.action)
        self._spot = True
        await self._tell_of_spot(notice)

    async def _tell_of_spot(self, notice: SpotNotice) -> None:
        self.drain(f"spot notice: {notice.action}")
        while True:
            try:
                await self._link.spot_eviction(messages.spot_eviction(notice))
                return
            except (*_AWAY, Refused):
                await asyncio.sleep(backoff.FIRST_S)

    async def _renew(self) -> None:
        while True:
            certificate = self._papers.certificate()
            if certificate.is_due(datetime.now(UTC)):
                with contextlib.suppress(*_AWAY, Refused):
                    await self._renew_now()
            life_s = (certificate.expires_at - certificate.issued_at).total_seconds()
            await asyncio.sleep(min(RENEWAL_CHECK_S, max(0.2, life_s / 20)))

    async def _renew_now(self) -> None:
        key = new_key()
        certificate_pem, ca_pem = await self._link.renew(key.csr_der)
        papers = msgspec.structs.replace(
            self._papers,
            key_pem=key.key_pem,
            certificate_pem=certificate_pem,
            ca_pem=ca_pem,
            got_at=datetime.now(UTC),
        )
        write_papers(self._options.data_dir, papers)
        before, self._papers, self._link = self._link, papers, Link(papers)
        _log.info("the certificate is renewed until %s", papers.certificate().expires_at.isoformat())
        await before.close()

    async def _stream_logs(self) -> None:
        failures = 0
        while True:
            try:
                await self._link.stream_logs(self._logs.batches())
                failures = 0
            except (*_AWAY, Refused):
                failures += 1
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
            await asyncio.sleep(backoff.pause_s(max(1, failures), random.random()))

    async def _upgrade(self, wanted: str) -> None:
        _log.info("becoming version %s", wanted)
        if await upgrade.install(wanted):
            self._end(Ending(0, start_anew=True))
        else:
            self._failed_versions.add(wanted)
        self._upgrading = None

    async def _leave(self, why: str) -> None:
        """Wait until nothing runs on the engine, then say goodbye."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(*_AWAY, Refused):
            await self._link.shutdown(messages.shutdown(why, finished=False))
        began_s = loop.time()
        await asyncio.sleep(SETTLE_S)
        # A machine that is taken away dies by itself; until then it may as well finish.
        longest_s = float("inf") if self._spot else self._options.drain_s
        while loop.time() - began_s < longest_s:
            state = self._keeper.state
            # What was seen before the last requests may have come says nothing of these.
            seen = self._keeper.looked_s >= began_s + SETTLE_S
            idle = seen and state.load.requests_running + state.load.requests_waiting == 0
            if not state.serving or (idle and state.knows_load):
                break
            await asyncio.sleep(0.5)
        with contextlib.suppress(*_AWAY, Refused):
            await self._link.shutdown(messages.shutdown(why, finished=True))
        await self._keeper.stop()
        self._end(Ending(0))

    def _status(self) -> NodeStatus:
        if self._draining is not None:
            return NodeStatus.DRAINING
        return NodeStatus.ACTIVE if self._keeper.state.serving and self._in_reach else NodeStatus.STARTING

    @property
    def _in_reach(self) -> bool:
        """Whether gateways can come to the engine, as far as that is ours to know."""
        return self._tunnel is None or self._tunnel.connected

    def _registration(self) -> Any:
        state = self._keeper.state
        return messages.registration(
            endpoint_url=self._endpoint_url,
            models=state.models or ((self._options.engine.model,) if self._options.engine.model else ()),
            status=NodeStatus.ACTIVE if state.models and state.serving and self._in_reach else NodeStatus.STARTING,
            backend=state.kind,
            engine_version=state.version,
            agent_version=version("crosslogic"),
            place=self._place,
            hardware=self._machine.read(),
            capacity=state.capacity,
            api_key=self._options.engine.api_key,
            deployment_id=self._options.deployment_id,
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A failure that cannot be lived with ends the agent; what is merely done does not."""
        if not task.cancelled() and (error := task.exception()) is not None and not self._ending.done():
            self._ending.set_exception(error)

    def _end(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)


def _lasting(registration: Any) -> bytes:
    """All of it that heartbeats do not say: a new one is sent when this changes."""
    copy = wire.RegisterRequest()
    copy.CopyFrom(registration)
    copy.status = wire.STATUS_UNSPECIFIED
    lasting: bytes = copy.SerializeToString(deterministic=True)
    return lasting
