"""The oracle of `bench.metering_faults`, in its pure parts: it must itself be right, and able to find fault."""

import struct
from pathlib import Path

import pytest
from bench.metering_faults import witness
from bench.metering_faults.callers import FRESH_S, fresh_since
from bench.metering_faults.door import Frontend
from bench.metering_faults.faults import weighed
from bench.metering_faults.report import bound


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


def _prepared(name: bytes, text: bytes) -> bytes:
    return _message(b"P", name + b"\0" + text + b"\0\0\0")


def _bound(name: bytes) -> bytes:
    return _message(b"B", b"\0" + name + b"\0" + bytes(6)) + _message(b"E", b"\0\0\0\0\0") + _message(b"S", b"")


def _query(text: bytes) -> bytes:
    return _message(b"Q", text + b"\0")


STARTUP = struct.pack(">II", 8, 80877103) + struct.pack(">II", 17, 196608) + b"user\0me\0\0"
CONVERSATION = (
    STARTUP
    + _query(b"BEGIN;")
    + _prepared(b"s1", b'INSERT INTO "usage_records" (a) SELECT 1')
    + _bound(b"s1")
    + _query(b"COMMIT;")
)


def test_a_commit_is_found_with_the_tables_it_wrote_to() -> None:
    assert Frontend().feed(CONVERSATION) == {"usage_records"}


def test_a_commit_is_found_however_the_bytes_are_cut() -> None:
    for cut in range(1, len(CONVERSATION)):
        frontend = Frontend()
        found = [frontend.feed(CONVERSATION[:cut]), frontend.feed(CONVERSATION[cut:])]
        assert [one for one in found if one] == [{"usage_records"}], cut


def test_what_only_reads_or_is_rolled_back_commits_nothing() -> None:
    frontend = Frontend()
    frontend.feed(STARTUP)
    assert frontend.feed(_query(b"BEGIN;") + _prepared(b"s1", b"SELECT 1") + _bound(b"s1") + _query(b"COMMIT;")) is None
    write = _prepared(b"s2", b"UPDATE charges SET a = 1") + _bound(b"s2")
    assert frontend.feed(_query(b"BEGIN;") + write + _query(b"ROLLBACK;") + _query(b"COMMIT;")) is None
    # A statement that was prepared long ago is known by its name.
    assert frontend.feed(_query(b"BEGIN;") + _bound(b"s2") + _query(b"COMMIT;")) == {"charges"}


def test_the_book_of_a_node_survives_its_death(tmp_path: Path) -> None:
    first = witness.Book(tmp_path)
    over, running = first.begin("req_1", "tag-1", 10, 4), first.begin("req_2", "tag-2", 20, 0)
    first.made(over, 3)
    first.end(over, 3)
    first.made(running, 7)
    second = witness.Book(tmp_path)  # the first one's process is gone, without a word
    second.end(second.begin("req_1", "tag-1", 13, 0), 2)
    found = {(work.request_id, work.tag, work.prompt_tokens, work.made, work.over) for work in witness.read(tmp_path)}
    assert found == {
        ("req_1", "tag-1", 10, 3, True),
        ("req_2", "tag-2", 20, 7, False),
        ("req_1", "tag-1", 13, 2, True),
    }


def test_no_discrepancy_in_three_hundred_thousand_is_the_promise() -> None:
    assert 0.99e-5 < bound(300_000, 0) < 1e-5
    assert bound(300_000, 1) > 1.5e-5


def test_a_kind_comes_more_often_and_the_others_as_often_as_before() -> None:
    def rates(every_s: float, kinds: tuple[tuple[str, int, object], ...]) -> dict[str, float]:
        deck = sum(weight for _, weight, _ in kinds)
        return {name: weight / deck / every_s for name, weight, _ in kinds}

    lane = 6.0, (("Redis killed", 3, bool), ("Redis SIGSTOP", 2, bool), ("Redis FLUSHALL", 1, bool))
    before, after = rates(*lane), rates(*weighed(*lane, {"FLUSHALL": 6, "SIGSTOP": 0}))  # type: ignore[arg-type]
    assert after == {"Redis killed": pytest.approx(before["Redis killed"]), "Redis FLUSHALL": pytest.approx(1 / 6)}
    assert weighed(*lane, {}) == lane  # type: ignore[arg-type]
    assert weighed(*lane, {"Redis": 0})[1] == ()  # type: ignore[arg-type]


def test_what_a_slow_reader_still_reads_of_a_dead_gateway_is_as_fresh_as_at_its_death() -> None:
    """Or a stream of 0.3 s that is read for another 2 s should have been in a mark."""
    asked_s, died_s, over_s = 10.0, 10.3, 12.3
    assert fresh_since(asked_s, over_s, [3.0, died_s, 11.0, 15.0]) == died_s - FRESH_S
    assert fresh_since(asked_s, over_s, [3.0, 15.0]) == over_s - FRESH_S
