"""What a tunnel says survives being cut into pieces of any size, and nothing that is no tunnel is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.tunnel.wire import (
    HELLO_BYTES,
    MAX_WORKERS,
    WELCOME_BYTES,
    BadTunnel,
    Frame,
    FrameReader,
    FrameType,
    Hello,
    Kind,
    Welcome,
    pipes_to_open,
    read_hello,
    read_welcome,
)

workers = st.integers(1, MAX_WORKERS)
frames = st.builds(Frame, st.sampled_from(FrameType), st.integers(0, 0xFFFF))
counts = st.integers(0, 10_000)


@given(st.sampled_from(Kind), st.integers(0, MAX_WORKERS - 1))
def test_hello_is_read_as_it_was_said(kind: Kind, worker: int) -> None:
    said = Hello(kind, worker)
    assert len(said.encode()) == HELLO_BYTES
    assert read_hello(said.encode()) == said


@given(st.sampled_from(Kind), workers, st.data())
def test_welcome_is_read_as_it_was_said(kind: Kind, of: int, data: st.DataObject) -> None:
    said = Welcome(kind, data.draw(st.integers(0, of - 1)), of)
    assert len(said.encode()) == WELCOME_BYTES
    assert read_welcome(said.encode()) == said


@given(st.lists(frames, max_size=30), st.lists(st.integers(1, 11), max_size=60))
def test_frames_do_not_depend_on_how_their_bytes_arrive(sent: list[Frame], sizes: list[int]) -> None:
    data = b"".join(frame.encode() for frame in sent)
    reader, received = FrameReader(), []
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        received += reader.feed(piece)
    assert received == sent


@given(st.binary(min_size=HELLO_BYTES, max_size=HELLO_BYTES))
def test_bytes_of_anybody_are_a_hello_or_refused(data: bytes) -> None:
    try:
        hello = read_hello(data)
    except BadTunnel:
        return
    assert data.startswith(b"CLT1")
    assert hello.worker < MAX_WORKERS


@given(st.binary(max_size=64))
def test_bytes_of_anybody_are_frames_or_refused(data: bytes) -> None:
    try:
        read = FrameReader().feed(data)
    except BadTunnel:
        return
    assert len(read) == len(data) // 4


def test_a_worker_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadTunnel):
        read_welcome(Welcome(Kind.LINE, 2, 2).encode())
    with pytest.raises(BadTunnel):
        read_hello(Hello(Kind.LINE, MAX_WORKERS).encode())


@given(idle=counts, waiting=counts, ordered=counts, spare=st.integers(0, 64))
def test_once_all_orders_have_come_everybody_is_served_and_the_spare_is_there(
    idle: int, waiting: int, ordered: int, spare: int
) -> None:
    opened = pipes_to_open(idle=idle, waiting=waiting, ordered=ordered, spare=spare)
    assert idle + ordered + opened >= waiting + spare
    assert opened == 0 or idle + ordered + opened == waiting + spare  # and none too many
    again = pipes_to_open(idle=idle, waiting=waiting, ordered=ordered + opened, spare=spare)
    assert again == 0  # what was ordered is not ordered twice
