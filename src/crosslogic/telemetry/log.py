"""Structured logs that the request path never waits for.

Lines are collected in a bounded buffer; a thread of its own encodes and writes them ten times a second.

Invariants: appending never blocks and never raises; when the buffer is full, lines are dropped and counted;
every line goes through `redacted`; a line that belongs to a request carries its id.
"""

import atexit
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from traceback import format_exception
from typing import Any, Literal

import msgspec

from crosslogic.telemetry.redaction import redacted

BUFFER_LINES = 50_000
WRITE_INTERVAL_S = 0.1

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Set by the gateway for the time of a request; log lines written meanwhile carry it."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_encoder = msgspec.json.Encoder(enc_hook=str)


class Access(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One answered request, for the access log. Making one and appending it is all that the request path does."""

    at_s: float  # seconds since 1970
    request_id: str
    endpoint: str
    status: int
    duration_ms: float
    org_id: str | None = None
    env_id: str | None = None
    key_id: str | None = None
    model: str | None = None
    node_id: str | None = None
    outcome: str | None = None
    first_token_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    attempts: int = 1
    reason: str | None = None


class LogWriter:
    """Buffers lines and writes them through `write` in a thread, as JSON or, for people, as plain text."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        style: Literal["json", "console"] = "json",
        buffer_lines: int = BUFFER_LINES,
        interval_s: float = WRITE_INTERVAL_S,
    ) -> None:
        self._write = write
        self._encode = _as_json if style == "json" else _as_text
        self._buffer: deque[Access | logging.LogRecord] = deque()
        self._buffer_lines = buffer_lines
        self._interval_s = interval_s
        self._dropped = 0
        self._dropped_told = 0
        self.on_dropped: Callable[[int], None] | None = None  # told of lost lines, in the writer's thread
        self._closing = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Lines dropped since the start."""
        return self._dropped

    def access(self, line: Access) -> None:
        """Append a line; under a microsecond."""
        if len(self._buffer) >= self._buffer_lines:
            self._dropped += 1
        else:
            self._buffer.append(line)

    def record(self, record: logging.LogRecord) -> None:
        if len(self._buffer) >= self._buffer_lines:
            self._dropped += 1
        else:
            self._buffer.append(record)

    def start(self) -> None:
        """Begin to write. Call it after a fork: threads do not survive one."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what is left, then stop."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        self.flush()

    def flush(self) -> None:
        """Write what is in the buffer now."""
        with self._writing:
            count = len(self._buffer)
            lines = [self._encoded(self._buffer.popleft()) for _ in range(count)]
            if self._dropped > self._dropped_told:
                lost = self._dropped - self._dropped_told
                self._dropped_told += lost
                if self.on_dropped is not None:
                    self.on_dropped(lost)
                lines.append(self._encode(_record(logging.WARNING, f"{lost} log lines were dropped")))
            if not lines:
                return
            try:
                self._write(redacted(b"".join(lines)))
            except OSError:
                self._dropped += count  # whoever read the log is gone; the metric is what remains

    def _encoded(self, line: Access | logging.LogRecord) -> bytes:
        try:
            return self._encode(line)
        except Exception:  # whatever a caller put into `extra` must not end the thread
            self._dropped += 1
            return b""

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self.flush()


class BufferedHandler(logging.Handler):
    """Hands records of the standard library's loggers to a `LogWriter`."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def handle(self, record: logging.LogRecord) -> bool:
        # without the lock of logging.Handler: the buffer needs none
        if record.args:  # arguments may change before the writer comes to it
            record.msg, record.args = record.getMessage(), None
        record.__dict__.setdefault("request_id", request_id.get())
        self._writer.record(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        self.handle(record)


def configure_logging(
    write: Callable[[bytes], object], *, level: str = "info", style: Literal["json", "console"] = "json"
) -> LogWriter:
    """Send this process's logs through a started `LogWriter`: ours from `level` up, others' from warning up."""
    writer = LogWriter(write, style=style)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(BufferedHandler(writer))
    root.setLevel(logging.WARNING)
    logging.getLogger("crosslogic").setLevel(level.upper())
    writer.start()
    atexit.register(writer.close)
    return writer


_second, _second_text = 0, ""


def _time(at_s: float) -> str:
    """RFC 3339 in UTC with milliseconds. Only the writer thread calls it, so that one cached second suffices."""
    global _second, _second_text
    whole = int(at_s)
    if whole != _second:
        _second_text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second = whole
    return f"{_second_text}.{int((at_s - whole) * 1000):03d}Z"


def _as_json(line: Access | logging.LogRecord) -> bytes:
    if isinstance(line, Access):
        head = f'{{"time":"{_time(line.at_s)}","level":"info","logger":"access",'
        body = _encoder.encode(line)
        return head.encode() + body[body.index(b",") + 1 :] + b"\n"  # `at_s`, its first, is the time
    fields = _fields(line)
    try:
        return _encoder.encode(fields) + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which the standard library escapes
        return json.dumps(fields, default=str).encode() + b"\n"


def _as_text(line: Access | logging.LogRecord) -> bytes:
    if isinstance(line, Access):
        fields = {name: value for name, value in msgspec.to_builtins(line).items() if name != "at_s"}
        head = f"{_time(line.at_s)[11:23]} INFO    access"
    else:
        fields = _fields(line)
        name, message = fields.pop("logger"), fields.pop("message")
        head = f"{fields.pop('time')[11:23]} {fields.pop('level').upper():<7} {name}  {message}"
    error = fields.pop("error", None)
    tail = "".join(f"  {name}={value}" for name, value in fields.items())
    return f"{head}{tail}\n{error or ''}".encode("utf-8", "backslashreplace")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "time": _time(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": str(record.msg),
    }
    fields.update(
        (name, value)
        for name, value in vars(record).items()
        if name not in _STANDARD and name not in fields and value is not None
    )
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = "".join(format_exception(record.exc_info[1]))
    return fields


def _record(level: int, message: str) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "crosslogic.telemetry", "msg": message, "created": time.time()})
    made.levelno, made.levelname = level, logging.getLevelName(level)
    return made
