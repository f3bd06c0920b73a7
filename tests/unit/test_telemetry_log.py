"""Logs: structured, never waited for, never with a secret."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from crosslogic.telemetry.log import Access, BufferedHandler, LogWriter, request_id


class Sink:
    """Where a writer writes to; it can be made to stand still, as a full pipe does."""

    def __init__(self) -> None:
        self.data = b""
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()

    def write(self, data: bytes) -> int:
        self.waiting.set()
        assert self.open.wait(10)
        self.data += data
        return len(data)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines()]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def writer(sink: Sink) -> LogWriter:
    return LogWriter(sink.write, buffer_lines=100)


@pytest.fixture
def logger(writer: LogWriter) -> Iterator[logging.Logger]:
    made = logging.getLogger("crosslogic.test")
    made.setLevel(logging.DEBUG)
    handler = BufferedHandler(writer)
    made.addHandler(handler)
    yield made
    made.removeHandler(handler)


def access(**fields: Any) -> Access:
    return Access(1_767_225_600.25, "req_1", "/v1/chat/completions", 200, 12.5, **fields)


def test_an_access_line_says_what_happened(writer: LogWriter, sink: Sink) -> None:
    writer.access(access(org_id="org_1", model="qwen", prompt_tokens=3, completion_tokens=4))
    writer.flush()
    (line,) = sink.lines()
    assert line["time"] == "2026-01-01T00:00:00.250Z"
    assert line["logger"] == "access"
    assert (line["request_id"], line["status"], line["duration_ms"]) == ("req_1", 200, 12.5)
    assert (line["org_id"], line["model"], line["completion_tokens"]) == ("org_1", "qwen", 4)
    assert line.keys().isdisjoint({"key_id", "at_s"})


def test_a_log_call_keeps_its_fields_and_its_error(logger: logging.Logger, writer: LogWriter, sink: Sink) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("no %s", "luck", extra={"node": "n1"})
    writer.flush()
    (line,) = sink.lines()
    assert (line["level"], line["logger"], line["message"], line["node"]) == (
        "error",
        "crosslogic.test",
        "no luck",
        "n1",
    )
    assert "ValueError: broken" in line["error"]


def test_a_message_means_what_it_meant_when_it_was_logged(
    logger: logging.Logger, writer: LogWriter, sink: Sink
) -> None:
    nodes = ["n1"]
    logger.info("nodes %s", nodes)
    nodes.append("n2")
    writer.flush()
    assert sink.lines()[0]["message"] == "nodes ['n1']"


async def test_lines_of_a_request_carry_its_id(logger: logging.Logger, writer: LogWriter, sink: Sink) -> None:
    async def serve(name: str) -> None:
        request_id.set(name)
        await asyncio.sleep(0)
        logger.info("served")

    await asyncio.gather(serve("req_1"), serve("req_2"))
    logger.info("idle")
    writer.flush()
    assert [line.get("request_id") for line in sink.lines()] == ["req_1", "req_2", None]


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_secret_is_written(sink: Sink, style: Any) -> None:
    writer = LogWriter(sink.write, style=style)
    for text in (
        "clsk_live_3Y9PgpxXKg9E1dnWZS8LR6gbmTE4fQJM4 and clsk_admin_3Y9PgpxXKg9E1dnWZS8LR6gbmTE4fQJM4",
        "Authorization: Bearer 3Y9Pgpx.abc-def",
        "OpenAI sk-proj-3Y9PgpxXKg9E, Anthropic sk-ant-3Y9PgpxXKg9E, Stripe sk_live_3Y9Pgpx, whsec_3Y9PgpxXKg",
        "postgresql://user:3Y9Pgpx@db/x and redis://:3Y9Pgpx@cache",
    ):
        writer.record(logging.makeLogRecord({"msg": text, "extra": text}))
        writer.access(access(model=text))
    writer.flush()
    assert b"3Y9Pgpx" not in sink.data
    assert b"clsk_live_[redacted]" in sink.data
    assert b"postgresql://user:[redacted]@db/x" in sink.data


def test_words_that_only_look_like_secrets_stay(writer: LogWriter, sink: Sink) -> None:
    text = "task-force on disk-shards at http://127.0.0.1:8000/v1 for risk-averse bearers"
    writer.record(logging.makeLogRecord({"msg": text}))
    writer.flush()
    assert sink.lines()[0]["message"] == text


def test_a_full_buffer_drops_and_says_how_many(writer: LogWriter, sink: Sink) -> None:
    for _ in range(130):
        writer.access(access())
    assert writer.dropped == 30
    writer.flush()
    lines = sink.lines()
    assert len(lines) == 101
    assert lines[-1]["message"] == "30 log lines were dropped"
    writer.access(access())
    writer.flush()
    assert len(sink.lines()) == 102


def test_nobody_waits_for_a_reader_that_stands_still(sink: Sink) -> None:
    writer = LogWriter(sink.write, buffer_lines=100, interval_s=0.001)
    sink.open.clear()
    writer.access(access())
    writer.start()
    assert sink.waiting.wait(10)
    for _ in range(150):  # would hang here if anything waited
        writer.access(access())
    assert writer.dropped == 50
    sink.open.set()
    writer.close()
    assert len(sink.lines()) == 1 + 100 + 1


def test_a_reader_that_is_gone_stops_nothing(writer: LogWriter) -> None:
    def broken(data: bytes) -> int:
        raise BrokenPipeError

    writer = LogWriter(broken)
    writer.access(access())
    writer.flush()
    assert writer.dropped == 1


def test_closing_writes_what_is_left(sink: Sink) -> None:
    writer = LogWriter(sink.write, interval_s=3600)
    writer.start()
    writer.access(access())
    writer.close()
    assert len(sink.lines()) == 1


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no words for this")


def test_odd_values_end_neither_line_nor_writer(logger: logging.Logger, writer: LogWriter, sink: Sink) -> None:
    logger.info("half a pair", extra={"name_given": "\udc80", "kind": object})
    logger.info("wordless", extra={"thing": Unprintable()})
    logger.info("next")
    writer.flush()
    messages = [line["message"] for line in sink.lines()]
    assert messages == ["half a pair", "next", "1 log lines were dropped"]
    assert sink.lines()[0]["name_given"] == "\udc80"
