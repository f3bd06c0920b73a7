"""The service `NodeAgent` of node_agent.proto over grpc.aio, behind a door with mutual TLS.

Invariant: no method acts before the caller's certificate was verified for this very call, so that a revoked one is
refused in the middle of a connection, too.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import msgspec

from crosslogic.fleet.agents import Agents, LogLine, NodeState
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.fleet.trust import Trust
from crosslogic.fleet.trust_sql import CertificateRecord, Trail
from crosslogic.fleet.wire import node_agent_pb2 as wire
from crosslogic.fleet.wire import translate
from crosslogic.kernel import errors
from crosslogic.net.tls_door import TlsDoor
from crosslogic.store.engine import DATABASE_ERRORS

SERVICE = "crosslogic.agent.v1.NodeAgent"
MAX_MESSAGE_BYTES = 1024 * 1024
GRACE_S = 1.0
OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 32),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.bdp_probe", 0),  # pings that size windows, which messages so small never fill
)

_CODES = {
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}
_log = logging.getLogger(__name__)


class NodeAgentServer:
    """Listens on a port of loopback that only `door` leads to."""

    def __init__(self, agents: Agents, trust: Trust, door: TlsDoor, trail_of: Callable[[str], Trail]) -> None:
        self._agents = agents
        self._trust = trust
        self._door = door
        self._trail_of = trail_of
        self._server: Any = None

    async def listen(self, host: str, port: int) -> int:
        """Serve agents at `port` of `host`, 0 for any free one; returns the port. Raises OSError."""
        self._server = grpc.aio.server(options=OPTIONS)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        inner = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return await self._door.listen(host, port, inner)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop(GRACE_S)
        await self._door.close()

    def _handlers(self) -> dict[str, Any]:
        unary: dict[str, tuple[Callable[..., Awaitable[Any]], Any]] = {
            "RegisterNode": (self._register, wire.RegisterRequest),
            "SendHeartbeat": (self._heartbeat, wire.HeartbeatRequest),
            "SendMetrics": (self._metrics, wire.MetricsRequest),
            "NotifySpotEviction": (self._spot_eviction, wire.SpotEvictionRequest),
            "Shutdown": (self._shutdown, wire.ShutdownRequest),
            "RenewCertificate": (self._renew, wire.RenewRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._guarded(method), kind.FromString, _encode)
            for name, (method, kind) in unary.items()
        }
        handlers["StreamLogs"] = grpc.stream_unary_rpc_method_handler(
            self._guarded(self._logs), wire.LogBatch.FromString, _encode
        )
        return handlers

    def _guarded(self, method: Callable[..., Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        """`method(who, request)` of whoever calls, with our errors as gRPC's."""

        async def call(request: Any, context: Any) -> Any:
            try:
                certificate, address = await self._caller(context)
                return await method(certificate, request, address)
            except errors.CrossLogicError as error:
                code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)
                await context.abort(code, str(error))
            except DATABASE_ERRORS as error:
                _log.warning("an agent's call finds no database (%s)", type(error).__name__)
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the database does not answer; try again")

        return call

    async def _caller(self, context: Any) -> tuple[CertificateRecord, str]:
        """Raises Unauthenticated."""
        port = str(context.peer()).rpartition(":")[2]
        presented = self._door.certificate_of(int(port)) if port.isdigit() else None
        if presented is None:
            raise errors.Unauthenticated("come through the port of the agents, with a certificate")
        certificate, address = presented
        return await self._trust.verify(certificate, address), address

    async def _register(self, who: CertificateRecord, request: Any, _address: str) -> Any:
        said = translate.registration(request)
        if who.region:
            said = msgspec.structs.replace(said, region=who.region)
        return self._told(await self._agents.register(who.identity, said, translate.facts(request)))

    async def _heartbeat(self, who: CertificateRecord, request: Any, _address: str) -> Any:
        return self._told(await self._agents.heartbeat(who.identity, translate.heartbeat(request)))

    async def _metrics(self, who: CertificateRecord, request: Any, _address: str) -> Any:
        self._agents.metrics(who.identity, translate.metrics(request))
        return wire.Ack()

    async def _spot_eviction(self, who: CertificateRecord, request: Any, _address: str) -> Any:
        state = await self._agents.spot_eviction(
            who.node_id,
            self._trail_of(who.node_id),
            cloud=translate.word(request.cloud),
            action=translate.word(request.action),
            at=translate.word(request.at),
            org_id=who.org_id,
        )
        return self._told(state)

    async def _shutdown(self, who: CertificateRecord, request: Any, _address: str) -> Any:
        reason = translate.word(request.reason)
        return self._told(await self._agents.shutdown(who.identity, reason, finished=request.finished))

    async def _renew(self, who: CertificateRecord, request: Any, address: str) -> Any:
        renewed = await self._trust.renew(who, request.csr_der, address)
        return wire.RenewReply(certificate_pem=renewed.certificate_pem, ca_pem=renewed.ca_pem)

    async def _logs(self, who: CertificateRecord, batches: AsyncIterator[Any], address: str) -> Any:
        identity: NodeIdentity = who.identity
        async for batch in batches:
            # A stream may last for weeks: who is revoked meanwhile is heard no more.
            who = await self._trust.verify_record(who, address)
            lines = [LogLine(line.at, line.source, line.text) for line in batch.lines]
            self._agents.logs(identity, lines, batch.dropped)
        return wire.Ack()

    def _told(self, state: NodeState) -> Any:
        return wire.NodeState(
            node_id=state.node.id,
            status=translate.status_out(state.node.status),  # type: ignore[arg-type]
            heartbeat_interval_s=self._agents.heartbeat_interval_s,
            wanted_version=state.wanted_version or "",
        )


def _encode(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded
