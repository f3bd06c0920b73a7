"""Which process leads, and which there are: chooses the store of leases, and tells the others that this one lives."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from importlib.metadata import version
from random import Random

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.coordination.etcd import EtcdLeases
from crosslogic.coordination.kubernetes import KubernetesLeases
from crosslogic.coordination.leader import Leader
from crosslogic.coordination.ports import LeaseStore
from crosslogic.coordination.sql import Process, SqlLeases, SqlProcesses
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.ids import new_id
from crosslogic.settings.model import Settings
from crosslogic.wiring.process import Background

CONTROL_LEASE = "crosslogic-control"
BEAT_S = 2.0
SILENCE_S = 3 * BEAT_S
_AWAY = (SQLAlchemyError, OSError, TimeoutError)


def check_coordinator(settings: Settings) -> None:
    """Raises ConfigurationError where the coordinator that is chosen has no address."""
    if settings.distributed.coordinator_type == "etcd" and not settings.distributed.etcd_endpoints:
        raise ConfigurationError("coordinator_type is etcd, but there are no distributed.etcd_endpoints")


def new_leases(settings: Settings, engine: AsyncEngine) -> LeaseStore:
    distributed = settings.distributed
    if distributed.coordinator_type == "etcd":
        check_coordinator(settings)
        return EtcdLeases(distributed.etcd_endpoints)
    if distributed.coordinator_type == "kubernetes":
        return KubernetesLeases(SystemClock(), namespace=distributed.kubernetes_namespace)
    return SqlLeases(engine)


class Presence:
    """Says now and then that this process lives, until its background ends."""

    def __init__(self, engine: AsyncEngine, role: str, address: str) -> None:
        self.id = new_id("process")
        self.store = SqlProcesses(engine)
        self._role, self._address = role, address
        self._version = version("crosslogic")

    def start(self, background: Background) -> None:
        background.start("presence", self._keep())

    async def _keep(self) -> None:
        try:
            while True:
                with contextlib.suppress(*_AWAY):  # of which others warn
                    await self.store.beat(self.id, self._role, self._version, self._address)
                await asyncio.sleep(BEAT_S)
        finally:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    await self.store.leave(self.id)


class Alone:
    """The embedded cloud is one process: it leads, and writes nothing to say so."""

    def __init__(self, address: str) -> None:
        self._process = Process(new_id("process"), "up", version("crosslogic"), address, 0.0, 0.0)
        self._began_s = time.monotonic()

    def start(self, background: Background) -> None:
        """There is nobody to tell."""

    def leads(self) -> bool:
        return True

    async def leader_id(self) -> str | None:
        return self._process.id

    async def processes(self) -> list[Process]:
        return [msgspec.structs.replace(self._process, age_s=time.monotonic() - self._began_s)]

    async def close(self) -> None:
        """Nothing is open."""


class Coordination:
    """Of one control process: a candidate for its cloud's one leader."""

    def __init__(
        self, settings: Settings, engine: AsyncEngine, address: str, on_change: Callable[[bool], None] | None = None
    ) -> None:
        self.presence = Presence(engine, "control", address)
        self._store = new_leases(settings, engine)
        self._leader = Leader(
            self._store,
            CONTROL_LEASE,
            self.presence.id,
            SystemClock(),
            Random(),
            ttl_s=settings.distributed.lease_ttl_s,
            on_change=on_change,
        )

    def start(self, background: Background) -> None:
        self.presence.start(background)
        background.start("leadership", self._leader.run())

    def leads(self) -> bool:
        return self._leader.leads

    async def leader_id(self) -> str | None:
        return await self._store.holder(CONTROL_LEASE)

    async def processes(self) -> list[Process]:
        return await self.presence.store.alive(SILENCE_S)

    async def close(self) -> None:
        await self._store.close()
