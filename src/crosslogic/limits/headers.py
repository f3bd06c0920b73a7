"""The rate-limit headers of every answer, in OpenAI's format, as bytes ready for the wire.

`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` tell of the tightest ceiling of each unit. A refusal adds
`retry-after` (whole seconds, rounded up: a caller that is alone and waits just that long is admitted) and
`retry-after-ms`, which OpenAI's clients prefer; when no waiting helps it adds `x-should-retry: false` instead.
"""

from math import ceil

from crosslogic.limits.model import Admitted, Headroom, Rejected, Room


def header_block(answer: Admitted | Rejected | Room) -> bytes:
    r"""All headers as `name: value\r\n` lines."""
    requests = answer.requests
    tokens = answer.tokens
    text = _lines(requests, "requests") if requests is not None else ""
    if tokens is not None:
        text += _lines(tokens, "tokens")
    if type(answer) is Rejected:
        text += _retry_lines(answer)
    return text.encode("ascii")


def header_pairs(answer: Admitted | Rejected) -> list[tuple[bytes, bytes]]:
    """The same as (name, value) pairs."""
    lines = header_block(answer).split(b"\r\n")[:-1]
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def _lines(room: Headroom, unit: str) -> str:
    return (
        f"x-ratelimit-limit-{unit}: {room.limit}\r\n"
        f"x-ratelimit-remaining-{unit}: {room.remaining}\r\n"
        f"x-ratelimit-reset-{unit}: {duration(room.reset_s)}\r\n"
    )


def _retry_lines(rejected: Rejected) -> str:
    if rejected.too_large:
        return "x-should-retry: false\r\n"
    return (
        f"retry-after: {max(1, ceil(rejected.retry_after_s))}\r\n"
        f"retry-after-ms: {max(1, ceil(rejected.retry_after_s * 1000))}\r\n"
    )


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them, rounded up to milliseconds: `0s`, `120ms`, `8.64s`, `6m0s`, `1h0m0.5s`."""
    ms = ceil(seconds * 1000 - 1e-6)
    if ms < 1000:
        return f"{ms}ms" if ms > 0 else "0s"
    whole_s, ms = divmod(ms, 1000)
    if whole_s < 60:
        return _seconds(whole_s, ms)
    minutes, whole_s = divmod(whole_s, 60)
    if minutes < 60:
        return f"{minutes}m{_seconds(whole_s, ms)}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{_seconds(whole_s, ms)}"


def _seconds(whole_s: int, ms: int) -> str:
    return f"{whole_s}.{ms:03}".rstrip("0") + "s" if ms else f"{whole_s}s"
