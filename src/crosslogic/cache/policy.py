"""Whether a request may be answered from the cache, and what its caller wants of it. Pure.

The request header `x-cache` opts in or out, within what the environment allows:

    use        answer from the cache if it can, else keep the new answer
    refresh    do not look, but keep the new answer
    no-store   neither look nor keep (so does any other word)
"""

from enum import Enum, auto

from crosslogic.cache.key import Fields
from crosslogic.cache.model import CachePolicy, Use

_STATEFUL = ("background", "conversation", "previous_response_id", "store")
_CLIENT_TOOLS = (None, "function", "custom")  # run by the caller; others run on the server and may act on the world
_URL_MEMBER = b'url":"'  # of a member named `url`, `image_url`, … ; inside a text the quotes would be escaped


class Wish(Enum):
    """What is to be done for one request."""

    BYPASS = auto()
    USE = auto()
    REFRESH = auto()


_BY_WORD = {b"use": Wish.USE, b"refresh": Wish.REFRESH}


def wish(policy: CachePolicy, header: bytes | None) -> Wish:
    """What the caller's header and the environment's policy come to."""
    if policy.use is Use.OFF:
        return Wish.BYPASS
    if header is None:
        return Wish.USE if policy.use is Use.ON else Wish.BYPASS
    return _BY_WORD.get(header.strip().lower(), Wish.BYPASS)


def is_cacheable(fields: Fields, meaning: bytes, *, generates: bool, sampled: bool) -> bool:
    """Whether an answer to this request may be given to another one that asks the same.

    Unless `sampled` answers count too, it is what only reads its prompt (embeddings, rerank, score), and of what
    generates one choice at temperature 0 or with a seed; what lies behind an address may change, so media must be
    inline. What has effects beyond its answer is never cached. `meaning` is the canonical JSON of the fields.
    """
    if has_side_effects(fields):
        return False
    if sampled:
        return True
    if generates and not (_one_choice(fields) and _repeats_itself(fields)):
        return False
    return not _names_an_address(meaning)


def has_side_effects(fields: Fields) -> bool:
    """The server keeps or reads state for it, or runs tools of its own."""
    if any(fields.get(name) for name in _STATEFUL):
        return True
    tools = fields.get("tools")
    if not tools:
        return False
    if not isinstance(tools, list):
        return True
    return any(not isinstance(tool, dict) or tool.get("type") not in _CLIENT_TOOLS for tool in tools)


def _one_choice(fields: Fields) -> bool:
    return all(fields.get(name) is None or _is_number(fields[name], 1) for name in ("n", "best_of"))


def _repeats_itself(fields: Fields) -> bool:
    seed = fields.get("seed")
    return _is_number(fields.get("temperature"), 0) or (isinstance(seed, int) and not isinstance(seed, bool))


def _is_number(value: object, wanted: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == wanted


def _names_an_address(meaning: bytes) -> bool:
    start = meaning.find(_URL_MEMBER)
    while start >= 0:
        start += len(_URL_MEMBER)
        if not meaning.startswith(b"data:", start):
            return True
        start = meaning.find(_URL_MEMBER, start)
    return False
