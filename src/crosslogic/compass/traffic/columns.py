"""Rows of a request log, CSV or JSON lines, in the many names and time formats that logs have. Pure.

Invariant: every row is either a request with a time and two lengths, or counted as bad with its reason; nothing raises
on the way, and no row costs more than its own length.
"""

import csv
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain

import msgspec

from crosslogic.kernel.errors import InvalidRequest

_TIME = (
    "timestamp", "time", "ts", "arrival", "arrival_time", "arrived_at", "created_at", "start_time", "date", "t_seconds",
)  # fmt: skip
_PROMPT = (
    "prompt_tokens", "input_tokens", "contexttokens", "context_tokens", "num_prompt_tokens", "request tokens",
    "tokens_in", "isl", "input_length", "prompt_len",
)  # fmt: skip
_OUTPUT = (
    "output_tokens", "completion_tokens", "generatedtokens", "generated_tokens", "generation_tokens",
    "num_output_tokens", "response tokens", "tokens_out", "osl", "output_length", "output_len",
)  # fmt: skip
_MOST_TOKENS = 10_000_000
_LONGEST_LINE = 100_000


class Request(msgspec.Struct, frozen=True):
    at_s: float  # seconds since 1970, or since the start of the log
    prompt_tokens: int
    output_tokens: int


class Bad(msgspec.Struct, frozen=True):
    line: int
    reason: str


def read_rows(lines: Iterable[str]) -> Iterator[Request | Bad]:
    """Each request of a log. Raises InvalidRequest when it has no such columns at all."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise InvalidRequest("the log is empty; give a line for each request: its time, prompt and output tokens")
    number, line = first
    if line.lstrip("\ufeff").lstrip().startswith("{"):
        yield from _json_rows(chain([first], numbered))
        return
    header = [name.strip().lower() for name in _split(line.lstrip("\ufeff"))]
    places = [_place(header, names, what) for names, what in _COLUMNS]
    for number, line in numbered:
        cells = _split(line)
        if len(line) > _LONGEST_LINE or len(cells) <= max(places):
            yield Bad(number, f"has {len(cells)} columns where {len(header)} were announced")
        else:
            yield _request(number, *(cells[place] for place in places))


_COLUMNS = ((_TIME, "time"), (_PROMPT, "prompt tokens"), (_OUTPUT, "output tokens"))


def _place(header: list[str], names: tuple[str, ...], what: str) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise InvalidRequest(
        f"the log has no column of {what}; name it {names[0]} (its columns are {', '.join(header[:12])})"
    )


def _split(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _json_rows(numbered: Iterable[tuple[int, str]]) -> Iterator[Request | Bad]:
    for number, line in numbered:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            yield Bad(number, "is not JSON")
            continue
        if not isinstance(row, dict):
            yield Bad(number, "is not a JSON object")
            continue
        fields = {str(name).lower(): value for name, value in row.items()}
        found = [next((fields[name] for name in names if name in fields), None) for names, _ in _COLUMNS]
        missing = [what for value, (_, what) in zip(found, _COLUMNS, strict=True) if value is None]
        yield Bad(number, f"has no {' and no '.join(missing)}") if missing else _request(number, *found)


def _request(number: int, at: object, prompt: object, output: object) -> Request | Bad:
    at_s, prompt_tokens, output_tokens = _seconds(at), _tokens(prompt), _tokens(output)
    if at_s is None:
        return Bad(number, f"its time {str(at)[:40]!r} is none")
    if prompt_tokens is None or output_tokens is None:
        wrong = prompt if prompt_tokens is None else output
        return Bad(number, f"{str(wrong)[:40]!r} is no number of tokens")
    return Request(at_s, prompt_tokens, output_tokens)


def _tokens(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number <= _MOST_TOKENS else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > 40:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _seconds(value: object) -> float | None:
    """ISO 8601, or a number: seconds, and milli-, micro- or nanoseconds since 1970 by their size."""
    number = _number(value)
    if number is not None:
        if number < 0:
            return None
        for unit in (1e9, 1e6, 1e3):
            if number > 1e8 * unit:  # later than 1973 in this unit
                return number / unit
        return number
    if not isinstance(value, str) or len(value) > 64:
        return None
    text = value.strip()
    head, dot, fraction = text.partition(".")
    if dot:  # more digits than microseconds, as some traces have
        digits = len(fraction) - len(fraction.lstrip("0123456789"))
        text = f"{head}.{fraction[: min(digits, 6)]}{fraction[digits:]}"
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()
