"""The load generator's reader: an answer is complete exactly when its last byte is there, however it is cut."""

import pytest
from bench.response import BrokenAnswer, Response

PLAIN = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"a":" tok"}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    b"6\r\ndata: \r\na;x=1\r\n0123456789\r\n0\r\n\r\n"
)


def read(pieces: list[bytes]) -> tuple[Response, list[bool]]:
    answer = Response()
    return answer, [answer.feed(piece) for piece in pieces]


@pytest.mark.parametrize("whole", [PLAIN, CHUNKED])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_is_complete_at_the_last_byte_only(whole: bytes, size: int) -> None:
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    answer, complete = read(pieces)
    assert complete == [False] * (len(pieces) - 1) + [True]
    assert answer.status == 200


@pytest.mark.parametrize("at", range(1, len(CHUNKED)))
def test_body_is_the_same_wherever_a_chunked_answer_is_cut(at: int) -> None:
    answer, complete = read([CHUNKED[:at], CHUNKED[at:]])
    assert complete == [False, True]
    assert answer.body == b"data: 0123456789"


def test_an_answer_without_a_body_is_complete_with_its_head() -> None:
    _, complete = read([b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"])
    assert complete == [True]


def test_knows_whether_the_connection_stays() -> None:
    assert read([PLAIN])[0].keep_alive
    assert not read([CHUNKED])[0].keep_alive


def test_can_be_used_again() -> None:
    answer = Response()
    for _ in range(3):
        assert answer.feed(PLAIN)
        assert answer.body == b'{"a":" tok"}'
        answer.reset()


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nbody until the end of the connection",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}more",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_refuses_what_it_cannot_read(broken: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        read([broken])
