"""The connection to control: gRPC with mutual TLS, tried again for as long as it takes.

Invariant: a failed call says which of two it is: `Away`, where trying again helps, or `Refused`, where it does not.
"""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from crosslogic.agent.papers import Papers
from crosslogic.fleet.authority import CONTROL_NAME
from crosslogic.fleet.wire import node_agent_pb2 as wire
from crosslogic.kernel.errors import CrossLogicError, NotFound

SERVICE = "crosslogic.agent.v1.NodeAgent"
CALL_TIMEOUT_S = 10.0
_OPTIONS = (
    ("grpc.ssl_target_name_override", CONTROL_NAME),
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.bdp_probe", 0),  # pings that size windows, which messages so small never fill
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
_REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
}


class Away(CrossLogicError):
    """Control does not answer."""


class Refused(CrossLogicError):
    """Control answers no. `revoked` when it does not take the certificate."""

    def __init__(self, message: str, *, revoked: bool) -> None:
        super().__init__(message)
        self.revoked = revoked


class Link:
    """Calls of `NodeAgent`. Each raises Away, Refused, or NotFound for a node that control does not know."""

    def __init__(self, papers: Papers) -> None:
        credentials = grpc.ssl_channel_credentials(
            papers.ca_pem.encode(), papers.key_pem.encode(), papers.certificate_pem.encode()
        )
        target = f"{_bracketed(papers.control_host)}:{papers.control_port}"
        self._channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)

    async def register(self, request: Any) -> Any:
        return await self._call("RegisterNode", request, wire.NodeState)

    async def heartbeat(self, request: Any) -> Any:
        return await self._call("SendHeartbeat", request, wire.NodeState)

    async def metrics(self, request: Any) -> None:
        await self._call("SendMetrics", request, wire.Ack)

    async def spot_eviction(self, request: Any) -> Any:
        return await self._call("NotifySpotEviction", request, wire.NodeState)

    async def shutdown(self, request: Any) -> Any:
        return await self._call("Shutdown", request, wire.NodeState)

    async def renew(self, csr_der: bytes) -> tuple[str, str]:
        """A new certificate and the CA, as PEM."""
        reply = await self._call("RenewCertificate", wire.RenewRequest(csr_der=csr_der), wire.RenewReply)
        return reply.certificate_pem.decode(), reply.ca_pem.decode()

    async def stream_logs(self, batches: AsyncIterator[Any]) -> None:
        """Until `batches` ends, or control goes."""
        call = self._channel.stream_unary(f"/{SERVICE}/StreamLogs", _encode, wire.Ack.FromString)
        try:
            await call(batches)
        except grpc.aio.AioRpcError as error:
            raise _meaning(error) from None

    async def close(self) -> None:
        await self._channel.close()

    async def _call(self, method: str, request: Any, reply: Any) -> Any:
        call = self._channel.unary_unary(f"/{SERVICE}/{method}", _encode, reply.FromString)
        try:
            return await call(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _meaning(error) from None


def _meaning(error: Any) -> CrossLogicError:
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound(str(details))
    if code in _REFUSALS:
        return Refused(str(details), revoked=code is grpc.StatusCode.UNAUTHENTICATED)
    return Away(f"control does not answer ({code.name})")


def _encode(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
