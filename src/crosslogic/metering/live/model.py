"""Sums of running requests, from what the journal says of them. Pure.

Invariant: nothing is asked of the request path. A request is in the journal before it is dispatched, a stream marks
every second or 64 tokens how far it has come, and whoever moves the journal to the ledger reads both anyway.
"""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from crosslogic.metering.model import Checkpoint, Intent

MOST_GROUPS = 5_000  # of one gateway; what goes beyond is told as one group of nobody


class LiveUsage(msgspec.Struct, frozen=True, array_like=True):
    """What runs now under one key. Prompts count as estimated until the engine tells; answers as far as marked."""

    org_id: str
    env_id: str
    key_id: str
    requests: int = 0
    streams: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def running(requests: Iterable[tuple[Intent, Checkpoint | None]]) -> list[LiveUsage]:
    """The sums of these requests, the largest first."""
    found: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for intent, mark in requests:
        sums = found[intent.org_id, intent.env_id, intent.key_id]
        sums[0] += 1
        sums[1] += intent.streamed
        sums[2] += mark.prompt_tokens if mark is not None and mark.prompt_tokens else intent.prompt_tokens_estimate
        sums[3] += 0 if mark is None else mark.completion_tokens
    groups = sorted((LiveUsage(*key, *sums) for key, sums in found.items()), key=_size, reverse=True)
    if len(groups) <= MOST_GROUPS:
        return groups
    return [*groups[: MOST_GROUPS - 1], total(groups[MOST_GROUPS - 1 :])]


def together(parts: Iterable[Iterable[LiveUsage]]) -> list[LiveUsage]:
    """Several gateways' sums as one, by org, environment and key."""
    found: dict[tuple[str, str, str], list[LiveUsage]] = defaultdict(list)
    for part in parts:
        for each in part:
            found[each.org_id, each.env_id, each.key_id].append(each)
    return [_sum(key, found[key]) for key in sorted(found)]


def total(groups: Iterable[LiveUsage]) -> LiveUsage:
    return _sum(("", "", ""), groups)


def _sum(key: tuple[str, str, str], groups: Iterable[LiveUsage]) -> LiveUsage:
    all_of = list(groups)
    return LiveUsage(
        *key,
        requests=sum(each.requests for each in all_of),
        streams=sum(each.streams for each in all_of),
        prompt_tokens=sum(each.prompt_tokens for each in all_of),
        completion_tokens=sum(each.completion_tokens for each in all_of),
    )


def _size(each: LiveUsage) -> int:
    return each.prompt_tokens + each.completion_tokens
