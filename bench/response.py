"""Reads HTTP/1.1 answers off a connection as cheaply as Python allows. Pure: bytes in, a verdict out.

Invariant: `feed` returns True exactly once for each answer, when its last byte has arrived; an answer that breaks the
framing raises `BrokenAnswer`. Only what our peers send is read: `content-length` or `chunked`, no trailers.
"""

from __future__ import annotations


class BrokenAnswer(Exception):
    """The bytes are no HTTP/1.1 answer that can be read, or the connection ended inside one."""


class Response:
    """The answer being read on one connection; `status`, `body` and `keep_alive` hold once it is complete."""

    __slots__ = ("_chunk_left", "_length_left", "_pending", "body", "keep_alive", "status")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Makes ready for the next answer."""
        self.status = 0
        self.keep_alive = True
        self.body = b""
        self._pending = b""
        self._length_left = 0
        self._chunk_left = -1  # -1: not a chunked answer; else body bytes still to come of the chunk at hand

    @property
    def begun(self) -> bool:
        """True once the head of the answer has been read."""
        return self.status != 0

    def feed(self, data: bytes) -> bool:
        """Takes what was received; True when the answer is complete."""
        if self.status == 0:
            if self._pending:
                data = self._pending + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._pending = data
                return False
            self._pending = b""
            self._read_head(data[: end + 2])
            data = data[end + 4 :]
        if self._chunk_left >= 0:
            return self._feed_chunked(data)
        self.body = self.body + data if self.body else data
        self._length_left -= len(data)
        if self._length_left < 0:
            raise BrokenAnswer("more bytes than content-length says")
        return self._length_left == 0

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 "):
            raise BrokenAnswer(f"no HTTP/1.1 status line: {head[:40]!r}")
        self.status = int(head[9:12])
        low = head.lower()
        self.keep_alive = b"\r\nconnection: close\r\n" not in low
        at = low.find(b"\r\ncontent-length:")
        if at >= 0:
            self._length_left = int(low[at + 17 : low.find(b"\r\n", at + 17)])
        elif b"\r\ntransfer-encoding: chunked\r\n" in low:
            self._chunk_left = 0
        else:
            raise BrokenAnswer("neither content-length nor chunked")

    def _feed_chunked(self, data: bytes) -> bool:
        if self._pending:
            data = self._pending + data
            self._pending = b""
        parts = [self.body] if self.body else []
        at, end, finished = 0, len(data), False
        while at < end:
            if self._chunk_left:
                # The two bytes that end a chunk are counted with it and cut off here.
                take = data[at : at + self._chunk_left]
                at += len(take)
                self._chunk_left -= len(take)
                parts.append(take if self._chunk_left >= 2 else take[: len(take) - 2 + self._chunk_left])
                continue
            line = data.find(b"\r\n", at)
            if line < 0:
                self._pending = data[at:]
                break
            try:
                size = int(data[at:line].split(b";", 1)[0], 16)
            except ValueError as error:
                raise BrokenAnswer(f"bad chunk size {data[at:line][:20]!r}") from error
            if size == 0:
                if end < line + 4:
                    self._pending = data[at:]
                    break
                finished = True
                break
            at = line + 2
            self._chunk_left = size + 2
        self.body = b"".join(parts)
        return finished
