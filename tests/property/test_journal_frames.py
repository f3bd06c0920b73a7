"""Whatever happens to the end of a segment, what is read is a prefix of what was committed."""

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslogic.metering.frames import HEADER_BYTES, Entry, Tail, header, header_seed, write_frame
from crosslogic.metering.reader import read_slice
from tests.metering_samples import intent, usage

SIZE = 8 << 10

entries = st.integers(0, 10**6).map(intent) | st.builds(
    lambda number, model: usage(number, model=model), st.integers(0, 10**6), st.text(max_size=30)
)
batches = st.lists(st.lists(entries, min_size=1, max_size=5), max_size=6)


def segment_bytes(batches: list[list[Entry]], number: int = 0) -> tuple[bytes, list[int]]:
    """A segment with these frames and zeros behind them, and where each frame ends."""
    head = header(1, number)
    seed = header_seed(head)
    assert seed is not None
    data, ends, frame = bytearray(head), [], bytearray()
    for batch in batches:
        write_frame(batch, seed, frame)
        data += frame
        ends.append(len(data))
    return bytes(data) + bytes(max(0, SIZE - len(data))), ends


def read_all(data: bytes, limit_bytes: int) -> tuple[list[Entry], Tail]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "segment")
        path.write_bytes(data)
        found: list[Entry] = []
        offset = 0
        while True:
            part = read_slice(path, offset, limit_bytes=limit_bytes)
            assert part.unknown == 0
            found += part.entries
            if part.tail is not Tail.FRAME:
                return found, part.tail
            assert part.next_offset > offset, "reading gets on"
            offset = part.next_offset


def committed(batches: list[list[Entry]], ends: list[int], up_to: int) -> list[Entry]:
    return [entry for batch, end in zip(batches, ends, strict=True) if end <= up_to for entry in batch]


@settings(max_examples=150, deadline=None)
@given(batches, st.integers(1, 3000))
def test_what_was_written_is_read_whatever_the_slices(batches: list[list[Entry]], limit_bytes: int) -> None:
    data, ends = segment_bytes(batches)
    assert read_all(data, limit_bytes) == (committed(batches, ends, len(data)), Tail.END)


@settings(max_examples=150, deadline=None)
@given(batches, st.integers(0, SIZE), st.integers(1, 3000))
def test_a_file_that_ends_anywhere_gives_the_whole_frames_before(
    batches: list[list[Entry]], cut: int, limit_bytes: int
) -> None:
    data, ends = segment_bytes(batches)
    found, _ = read_all(data[:cut], limit_bytes)
    assert found == committed(batches, ends, cut)


@settings(max_examples=200, deadline=None)
@given(batches.filter(bool), st.data())
def test_pages_of_the_last_write_that_never_arrived_hide_that_write_only(
    batches: list[list[Entry]], data: st.DataObject
) -> None:
    whole, ends = segment_bytes(batches)
    start = ends[-2] if len(ends) > 1 else HEADER_BYTES
    at = data.draw(st.integers(start, ends[-1] - 1))
    length = data.draw(st.integers(1, ends[-1] - at))
    torn = whole[:at] + bytes(length) + whole[at + length :]
    found, _ = read_all(torn, 512)
    before = committed(batches, ends, start)
    if torn == whole:
        before = committed(batches, ends, ends[-1])
    assert found == before


@settings(max_examples=200, deadline=None)
@given(batches.filter(bool), st.data())
def test_a_flipped_bit_is_never_taken_for_data(batches: list[list[Entry]], data: st.DataObject) -> None:
    whole, ends = segment_bytes(batches)
    at = data.draw(st.integers(HEADER_BYTES, ends[-1] - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << bit
    found, _ = read_all(bytes(damaged), 512)
    hit = next(end for end in ends if at < end)
    assert found == [e for batch, end in zip(batches, ends, strict=True) if end < hit for e in batch]


@given(batches.filter(bool))
def test_frames_of_another_segment_are_not_taken(batches: list[list[Entry]]) -> None:
    other, _ = segment_bytes(batches, number=7)
    assert read_all(header(1, 0) + other[HEADER_BYTES:], 512) == ([], Tail.TORN)


def test_entries_of_a_later_version_are_counted_and_the_known_ones_read() -> None:
    known, new_tag = msgspec.to_builtins(intent(1)), ["checkpoint", "req_1", 64]
    longer = [*msgspec.to_builtins(usage(2)), "a field of tomorrow"]
    other_outcome = [*longer[:15], "teleported", *longer[16:]]
    seed = header_seed(header(1, 0))
    assert seed is not None
    frame = bytearray()
    write_frame([known, new_tag, longer, other_outcome], seed, frame)  # type: ignore[list-item]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "segment")
        path.write_bytes(header(1, 0) + frame)
        part = read_slice(path)
    assert part.entries == (intent(1), usage(2))
    assert part.unknown == 2
    assert part.finished
