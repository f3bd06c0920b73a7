"""What a tunnel says besides the HTTP that goes through it. Pure.

    agent -> gateway    Hello, in the clear, before TLS: what the connection is for, and for which worker
    gateway -> agent    Welcome, inside TLS: the same, and how many workers there are; the certificate was taken
    a *line* then carries frames: the gateway pings and asks for connections, the agent answers pings
    a *pipe* then carries HTTP/1.1, one request after the other, as any connection to an engine does

Hello is in the clear because it decides which worker does the handshake. It is worth nothing to whoever changes it:
Welcome repeats it where nobody can.
"""

import struct
from enum import IntEnum

import msgspec

GATEWAY_NAME = "gateway.crosslogic.internal"  # what agents expect of its certificate, at whatever address it listens
PING_INTERVAL_S = 4.0
SILENCE_S = 12.0  # a line that nothing came over for so long is dead
MAX_WORKERS = 256

_MAGIC = b"CLT1"
_HELLO = struct.Struct(">4sBxH")
_WELCOME = struct.Struct(">4sBxHH")
_FRAME = struct.Struct(">BxH")
HELLO_BYTES = _HELLO.size
WELCOME_BYTES = _WELCOME.size


class BadTunnel(ValueError):
    """The other end does not speak this protocol."""


class Kind(IntEnum):
    LINE = 1
    PIPE = 2


class Hello(msgspec.Struct, frozen=True):
    kind: Kind
    worker: int

    def encode(self) -> bytes:
        return _HELLO.pack(_MAGIC, self.kind, self.worker)


class Welcome(msgspec.Struct, frozen=True):
    kind: Kind
    worker: int
    workers: int

    def encode(self) -> bytes:
        return _WELCOME.pack(_MAGIC, self.kind, self.worker, self.workers)


class FrameType(IntEnum):
    PING = 1
    PONG = 2
    OPEN = 3  # open so many pipes more


class Frame(msgspec.Struct, frozen=True):
    type: FrameType
    count: int = 0  # of OPEN

    def encode(self) -> bytes:
        return _FRAME.pack(self.type, self.count)


def read_hello(data: bytes) -> Hello:
    """Of exactly `HELLO_BYTES`. Raises BadTunnel."""
    magic, kind, worker = _HELLO.unpack(data)
    _require_magic(magic)
    if worker >= MAX_WORKERS:
        raise BadTunnel(f"no worker has the number {worker}")
    return Hello(_kind(kind), worker)


def read_welcome(data: bytes) -> Welcome:
    """Of exactly `WELCOME_BYTES`. Raises BadTunnel."""
    magic, kind, worker, workers = _WELCOME.unpack(data)
    _require_magic(magic)
    if not 0 <= worker < workers <= MAX_WORKERS:
        raise BadTunnel(f"worker {worker} of {workers}")
    return Welcome(_kind(kind), worker, workers)


class FrameReader:
    """Frames out of bytes that come in pieces of any size. Keeps less than one frame."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Raises BadTunnel."""
        data = self._rest + data
        whole = len(data) - len(data) % _FRAME.size
        self._rest = data[whole:]
        try:
            return [Frame(FrameType(kind), count) for kind, count in _FRAME.iter_unpack(data[:whole])]
        except ValueError:
            raise BadTunnel("a frame of no known type") from None


def pipes_to_open(*, idle: int, waiting: int, ordered: int, spare: int) -> int:
    """How many pipes the agent should open now.

    Who waits gets one each, and `spare` more are kept for who comes next; what was ordered already is on its way.
    """
    return max(0, min(waiting + spare - idle - ordered, 0xFFFF))


def _require_magic(magic: bytes) -> None:
    if magic != _MAGIC:
        raise BadTunnel("this is no tunnel")


def _kind(number: int) -> Kind:
    try:
        return Kind(number)
    except ValueError:
        raise BadTunnel(f"a connection of no known kind ({number})") from None
