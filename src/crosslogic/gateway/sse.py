"""What every stream's answer begins with."""

from typing import Final

STREAM_HEADERS: Final = (
    b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
)
