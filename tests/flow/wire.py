"""A caller that works on the bare socket, so that it knows to the byte what it got and how the connection ended.

SDKs forgive and hide; what a gateway promises about truncation, disconnects and untouched bytes is seen only here.
"""

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

Headers = Mapping[str, str]


class Reply:
    """What arrived of one answer."""

    def __init__(self, data: bytes, ending: str, seconds: float) -> None:
        head, _, self.framed = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.ending = ending  # whole, closed, reset, or silent when the caller gave up waiting
        self.seconds = seconds
        self.status = int(lines[0].split()[1]) if lines[0] else 0
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.body, self.whole = _unframed(self.headers, self.framed)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """Data of the server-sent events. Lines of bytes: U+2028 in a text ends a `str`'s line too."""
        return [line[6:].decode() for line in self.body.splitlines() if line.startswith(b"data: ")]

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(event) for event in self.events if event != "[DONE]"]

    @property
    def done(self) -> bool:
        """Whether a caller that goes by the protocols would take this stream for a whole answer."""
        return self.whole and self.events[-1:] == ["[DONE]"] and not any("error" in chunk for chunk in self.chunks)

    @property
    def usage(self) -> Any:
        """The usage that the caller saw, of a whole answer or of a stream's last chunk."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            return self.json.get("usage")
        return next((chunk["usage"] for chunk in self.chunks if chunk.get("usage")), None)

    def __repr__(self) -> str:
        return f"<{self.status} {self.ending} {self.body[-300:]!r}>"


def _unframed(headers: Headers, framed: bytes) -> tuple[bytes, bool]:
    """(body, whether the framing says that this is all of it)."""
    if "content-length" in headers:
        return framed, len(framed) >= int(headers["content-length"])
    body, rest = b"", framed
    while rest:
        size, found, after = rest.partition(b"\r\n")
        if not found:
            break
        length = int(size, 16)
        if length == 0:
            return body, after == b"\r\n"
        body += after[:length]
        rest = after[length + 2 :]
    return body, False


def _may_be_whole(received: bytearray) -> bool:
    """Whether it is worth taking apart: done at each piece, that would be slow enough to keep a node waiting."""
    head, found, _ = received[:65536].partition(b"\r\n\r\n")
    return bool(found) and (b"content-length:" in head.lower() or received.endswith(b"0\r\n\r\n"))


class Conversation:
    """One connection with one request on it."""

    def __init__(self, base_url: str, *, receive_buffer_bytes: int | None = None) -> None:
        parts = urlsplit(base_url)
        self._host = parts.netloc
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.connect((parts.hostname or "", parts.port or 80))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self._began_s = time.monotonic()

    def send(self, path: str, body: object = None, headers: Headers | None = None, method: str = "POST") -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}", f"content-length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def until(self, arrived: Callable[[bytes], bool], timeout_s: float = 10.0) -> bytes:
        """Read until what was received satisfies `arrived`."""
        self.socket.settimeout(timeout_s)
        while not arrived(self.received):
            piece = self.socket.recv(65536)
            assert piece, f"the connection ended after {self.received!r}"
            self.received += piece
        return self.received

    def rest(self, timeout_s: float = 10.0) -> Reply:
        """Read to the end of the answer, or of the connection."""
        self.socket.settimeout(timeout_s)
        ending, received = "closed", bytearray(self.received)
        try:
            while True:
                if _may_be_whole(received):
                    self.received = bytes(received)
                    reply = Reply(self.received, "whole", time.monotonic() - self._began_s)
                    if reply.whole:
                        return reply
                piece = self.socket.recv(65536)
                if not piece:
                    break
                received += piece
        except TimeoutError:
            ending = "silent"
        except ConnectionError:
            ending = "reset"
        self.received = bytes(received)
        return Reply(self.received, ending, time.monotonic() - self._began_s)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave without a goodbye, as a killed process may."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def ask(
    base_url: str,
    path: str,
    body: object = None,
    headers: Headers | None = None,
    *,
    method: str = "POST",
    timeout_s: float = 10.0,
) -> Reply:
    """One request on a connection of its own, read to its end."""
    conversation = Conversation(base_url)
    try:
        conversation.send(path, body, headers, method)
        return conversation.rest(timeout_s)
    finally:
        conversation.close()
