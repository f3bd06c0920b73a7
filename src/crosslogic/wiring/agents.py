"""Builds the side of control that node agents talk to: CA, door, gRPC server, heartbeats.

Invariant: the CA's key and our own are in files that only their owner reads, or came as a secret.
"""

import asyncio
import logging
import ssl
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.services import AgentServices
from crosslogic.fleet.agents import Agents
from crosslogic.fleet.authority import Authority
from crosslogic.fleet.grpc import NodeAgentServer
from crosslogic.fleet.heartbeats import Heartbeats
from crosslogic.fleet.registry import Registry
from crosslogic.fleet.trust import Trust
from crosslogic.kernel.clock import Clock
from crosslogic.net.tls_door import TlsDoor
from crosslogic.settings.model import Settings
from crosslogic.store.changes import Follower, Following
from crosslogic.store.engine import DATABASE_ERRORS
from crosslogic.tenancy.audit import Actor, ActorKind
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.wiring.authority import NEW_SERVER_CERTIFICATE_S, read_or_create_authority
from crosslogic.wiring.credentials import write_private
from crosslogic.wiring.process import Background

REPORTS_INTERVAL_S = 5.0

_log = logging.getLogger(__name__)


class AgentEntrance:
    """One for each control process. Without `control.agent_port` agents come over HTTP only, with the admin key."""

    def __init__(
        self, settings: Settings, engine: AsyncEngine, registry: Registry, clock: Clock, hash_key: KeyHasher
    ) -> None:
        self._settings = settings.control
        self._directory = settings.data_dir / "ca"
        self._engine = engine
        self._clock = clock
        self._hash_key = hash_key
        self._port = 0
        self._server: NodeAgentServer | None = None
        self._context: ssl.SSLContext | None = None
        self.heartbeats = Heartbeats(registry, engine, clock)
        self._agents = Agents(engine, registry, self.heartbeats, clock, settings.fleet.heartbeat_interval_s)
        self._trust = None if self._settings.agent_port is None else self._new_trust()
        self.services = AgentServices(
            self._agents, self.heartbeats, self._trust, lambda: self._port, self._settings.agent_host
        )

    async def start(self, background: Background) -> None:
        """Raises OSError when the port cannot be listened on, ConfigurationError, and what SQLAlchemy raises."""
        followers: list[Follower] = [self.heartbeats.sync, self._agents]
        if self._trust is not None:
            followers.append(self._trust)
        following = Following(self._engine, followers)
        await following.start()
        background.start("agents' changes", following.run())
        background.start("heartbeats", self.heartbeats.run())
        background.start("agents' reports", self._write_reports())
        if self._trust is None or self._settings.agent_port is None:
            return
        self._context = _server_context(self._trust.authority)
        self._new_server_certificate(self._trust.authority)
        trust = self._trust

        async def refused(reason: str, address: str) -> None:
            await trust.refuse(f"handshake_{reason}", address)

        self._server = NodeAgentServer(self._agents, trust, TlsDoor(self._context, refused), self._trail_of)
        self._port = await self._server.listen(self._settings.agent_listen, self._settings.agent_port)
        background.start("control's certificate", self._keep_certificate(trust.authority))
        _log.info("agents are let in at port %d", self._port)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()

    def _new_trust(self) -> Trust:
        authority = read_or_create_authority(self._settings, self._directory, self._clock)
        lifetime = timedelta(seconds=self._settings.certificate_lifetime_s)
        return Trust(self._engine, authority, self._clock, self._trail_of, lifetime)

    def _trail_of(self, node_id: str) -> AuditTrail:
        return AuditTrail(Actor(ActorKind.NODE, node_id), self._hash_key, self._clock)

    async def _write_reports(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(REPORTS_INTERVAL_S)
            try:
                await self._agents.flush()
                failing = False
            except DATABASE_ERRORS as error:
                if not failing:
                    _log.warning("agents' reports cannot be written (%s); they wait", type(error).__name__)
                failing = True

    async def _keep_certificate(self, authority: Authority) -> None:
        while True:
            await asyncio.sleep(NEW_SERVER_CERTIFICATE_S)
            self._new_server_certificate(authority)

    def _new_server_certificate(self, authority: Authority) -> None:
        """Handshakes from now on use a new one; connections that are there go on."""
        assert self._context is not None
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._directory / "server.pem"
        write_private(path, authority.server_pem(self._clock.now()))
        self._context.load_cert_chain(path)


def _server_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a CA that is given need not be a root
    context.load_verify_locations(cadata=authority.ca_pem.decode())
    context.set_alpn_protocols(["h2"])
    return context
