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
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.Transport] = set()
        self._free = asyncio.Semaphore(MAX_HANDSHAKES)
        self._socket: socket.socket | None = None
        self._target_port = 0

    async def listen(self, host: str, port: int, target_port: int) -> int:
        """Pass what comes in on to `target_port` of loopback; returns the port. Raises OSError."""
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(info[0], info[1], info[2])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(info[4])
        listening.listen(1024)
        listening.setblocking(False)
        self._socket = listening
        self._target_port = target_port
        self._spawn(self._accept(listening))
        return int(listening.getsockname()[1])

    def certificate_of(self, port: int) -> tuple[bytes, str] | None:
        """Certificate (DER) and address of the peer whose bytes reach the server from this port of loopback."""
        return self._certificates.get(port)

    async def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        for transport in self._transports:
            transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:  # too many open files, or the peer is gone already
                self._free.release()
                _log.warning("a connection could not be accepted (%s)", error.strerror)
                await asyncio.sleep(0.1)
                continue
            self._spawn(self._welcome(accepted, str(address[0])))

    async def _welcome(self, accepted: socket.socket, address: str) -> None:
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
            self._free.release()
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

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _REASONS.get(error.verify_code, "bad_certificate")
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no_certificate"
    return "handshake"
