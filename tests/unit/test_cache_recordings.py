"""Recordings: made only of whole answers within their bound, and read back from Redis as they were."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.cache import codec
from crosslogic.cache.model import Form, Recording, Tokens
from crosslogic.cache.tap import Tap
from crosslogic.kernel.ids import RequestId
from tests.cache_samples import EVENTS, answered, question, recording, stream

MOST = 10_000_000


def test_a_stream_is_recorded_packet_by_packet_with_its_end() -> None:
    tap = Tap(1000)
    for event in EVENTS:
        tap.take(event)
    tap.take(b"")
    made = tap.record(question(form=Form.STREAM), answered(b"data: [DONE]\n\n", streamed=True))
    assert made is not None
    assert made.pieces == (*EVENTS, b"data: [DONE]\n\n")
    assert (made.streamed, made.content_type[:17]) == (True, b"text/event-stream")


def test_a_whole_answer_keeps_its_bytes_type_and_tokens() -> None:
    made = Tap(1000).record(question(), answered(b'{"a":1}'))
    assert made is not None
    assert (made.pieces, made.content_type, made.tokens, made.request_id) == (
        (b'{"a":1}',),
        b"application/json",
        Tokens(3, 5),
        "req_1",
    )


def test_what_is_too_long_is_not_recorded_and_costs_no_memory() -> None:
    tap = Tap(100)
    for _ in range(50):
        tap.take(b"x" * 10)
    assert tap.overflowed
    assert tap._pieces == []
    assert tap.record(question(form=Form.STREAM), answered(b"", streamed=True)) is None
    assert Tap(100).record(question(), answered(b"x" * 101)) is None
    assert Tap(100).record(question(), answered(b"x" * 100)) is not None


@pytest.mark.parametrize(
    "unfit",
    [
        answered(by_engine=False),
        answered(model="its-fallback"),
        answered(streamed=True),
        answered(finish_reason="abort"),
        answered(finish_reason="error"),
    ],
)
def test_only_the_engines_own_whole_answer_to_what_was_asked_fits_others(unfit: object) -> None:
    assert answered().fits(question())
    assert not unfit.fits(question())  # type: ignore[attr-defined]


recordings = st.builds(
    Recording,
    st.text(max_size=40).map(RequestId),
    st.text(max_size=40),
    st.booleans(),
    st.integers(200, 299),
    st.binary(max_size=40),
    st.lists(st.binary(max_size=900), max_size=12).map(tuple),
    st.builds(Tokens, *(st.integers(0, 2**40) for _ in range(4))),
    st.none() | st.text(max_size=10),
)


@given(recordings)
def test_what_is_written_is_read_back(made: Recording) -> None:
    assert codec.read(codec.write(made), most_bytes=MOST) == made


@given(recordings, st.data())
def test_damage_is_never_an_exception(made: Recording, data: st.DataObject) -> None:
    written = codec.write(made)
    cut = data.draw(st.integers(0, len(written) - 1))
    assert codec.read(written[:cut], most_bytes=MOST) is None
    flipped = bytearray(written)
    flipped[cut] ^= data.draw(st.integers(1, 255))
    codec.read(bytes(flipped), most_bytes=MOST)


def test_long_text_shrinks_and_noise_does_not_grow() -> None:
    text = stream(*(b'data: {"choices":[{"delta":{"content":"word %d"}}]}\n\n' % n for n in range(500)))
    assert len(codec.write(text)) < text.size_bytes / 3
    noise = recording(random.Random(1).randbytes(50_000))
    assert len(codec.write(noise)) < noise.size_bytes + 100


def test_a_packed_answer_that_would_burst_is_not_unpacked() -> None:
    bomb = b"\x02" + zlib.compress(codec.write(recording(b"\0" * 5_000_000))[1:] + b"\0" * 5_000_000, 9)
    assert codec.read(bomb, most_bytes=1_000_000) is None
    assert codec.read(b"\x07rest", most_bytes=MOST) is None
    assert codec.read(b"", most_bytes=MOST) is None
