"""A port with mutual TLS in front of a server in this process, which learns whose certificate each connection has.

gRPC's own TLS tells nobody about a handshake that fails, and those are what an audit log is for. So the handshake is
done here, and the plain bytes go on over loopback.

Invariant: `certificate_of` answers for connections of this door only. Whoever else on this machine connects to the
server behind it has no certificate, and is nobody.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

from crosslogic.net.greeting import GreetingPort
from crosslogic.net.pipe import Pipe

HANDSHAKE_TIMEOUT_S = 10.0
MAX_HANDSHAKES = 512  # at once; more wait in the kernel's queue

Refused = Callable[[str, str], Awaitable[None]]
"""Called with reason and address of a handshake that failed: `expired`, `wrong_ca`, `no_certificate` or `handshake`."""

_REASONS = {
    10: "expired",
    9: "not_yet_valid",
    18: "wrong_ca",
    19: "wrong_ca",
    20: "wrong_ca",
    21: "wrong_ca",
    7: "wrong_ca",
}
_log = logging.getLogger(__name__)


class TlsDoor:
    """One listening port. `context` must ask for client certificates."""

    def __init__(self, context: ssl.SSLContext, on_refused: Refused) -> None:
        self._context = context
        self._on_refused = on_refused
        self._certificates: dict[int, tuple[bytes, str]] = {}
        self._transports: set[asyncio.Transport] = set()
        self._port = GreetingPort(self._welcome, MAX_HANDSHAKES)
        self._target_port = 0

    async def listen(self, host: str, port: int, target_port: int) -> int:
        """Pass what comes in on to `target_port` of loopback; returns the port. Raises OSError."""
        self._target_port = target_port
        return self._port.listen(host, port)

    def certificate_of(self, port: int) -> tuple[bytes, str] | None:
        """Certificate (DER) and address of the peer whose bytes reach the server from this port of loopback."""
        return self._certificates.get(port)

    async def close(self) -> None:
        for transport in self._transports:
            transport.abort()
        await self._port.close()

    async def _welcome(self, accepted: socket.socket, address: str, greeted: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        outer = Pipe()
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport, _ = await loop.connect_accepted_socket(
                lambda: outer, accepted, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
            )
        except ssl.SSLError as error:
            await self._refuse(_reason(error), address)
            return
        except (OSError, TimeoutError):  # a port scan, a health check: nobody claimed to be anybody
            accepted.close()
            return
        finally:
            greeted()
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        inner = Pipe()
        try:
            target, _ = await loop.create_connection(lambda: inner, "127.0.0.1", self._target_port)
        except OSError:
            transport.abort()
            return
        port = target.get_extra_info("sockname")[1]
        self._certificates[port] = (certificate, address)
        self._transports |= {transport, target}
        # No byte is passed on before this line, so the server never sees a connection that is not in the table.
        outer.join(inner, target)
        inner.join(outer, transport)
        try:
            await asyncio.gather(outer.ended, inner.ended)
        finally:
            self._certificates.pop(port, None)
            self._transports -= {transport, target}

    async def _refuse(self, reason: str, address: str) -> None:
        _log.info("a node's handshake from %s failed: %s", address, reason)
        try:
            await self._on_refused(reason, address)
        except Exception as error:  # the audit log may be away; the handshake has failed all the same
            _log.warning("the refusal could not be written down (%s)", type(error).__name__)


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _REASONS.get(error.verify_code, "bad_certificate")
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no_certificate"
    return "handshake"
