"""Faults that a caller can ask the simulated node to commit, and the plan of which request gets which.

A specification is `name` or `name=value`, several joined by `;`, as in `error=503;retry_after=2`. It comes in the
`x-simulate-fault` header of one request, or over `POST /admin/faults` for the next K requests or a share of them.
Pure: the plan draws from the generator it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from crosslogic.kernel.errors import InvalidRequest

if TYPE_CHECKING:
    from random import Random

Number = TypeVar("Number", int, float)

# name -> how its value is read; a name without a value stands for itself.
_FLAGS = frozenset({"reset", "silence", "no_done", "no_usage", "error_before"})
_COUNTS = frozenset({"cut", "reset_after", "stall", "malformed", "crash"})


class Fault(msgspec.Struct, frozen=True):
    """What goes wrong with one request. Counts are events with a token that are sent before it happens."""

    error: int | None = None  # this HTTP status at once
    retry_after_s: float | None = None  # with `error`: the Retry-After header
    slow_first_token_s: float = 0.0  # nothing is sent for so long, in wall-clock seconds
    reset: bool = False  # TCP RST instead of an answer
    silence: bool = False  # the request is read and never answered
    error_before: bool = False  # status 200, but the first event is an error
    reset_after: int | None = None  # TCP RST after N events
    cut: int | None = None  # FIN after N events, without the end of the chunked body
    stall: int | None = None  # nothing more after N events; the connection stays open
    malformed: int | None = None  # after N events one is not valid JSON; the rest follows
    crash: int | None = None  # error event, [DONE], and the process exits
    no_done: bool = False  # the stream ends properly, without `[DONE]`
    no_usage: bool = False  # no usage in the answer, even when asked for


NO_FAULT = Fault()


def parse_fault(specification: str) -> Fault:
    """Read `error=503;retry_after=2`. Raises InvalidRequest for an unknown name or a value that does not fit."""
    fields: dict[str, object] = {}
    for clause in filter(None, (part.strip() for part in specification.split(";"))):
        name, _, value = clause.partition("=")
        try:
            if name in _FLAGS and not value:
                fields[name] = True
            elif name in _COUNTS:
                fields[name] = _not_negative(int(value))
            elif name == "error":
                fields[name] = int(value)
                if not 400 <= int(value) <= 599:
                    raise ValueError
            elif name in ("retry_after", "slow_first_token"):
                fields[name + "_s"] = _not_negative(float(value))
            else:
                raise ValueError
        except ValueError:
            raise InvalidRequest(f"`{clause}` is not a fault that can be simulated", param="fault") from None
    if not fields:
        raise InvalidRequest("no fault is given", param="fault")
    return msgspec.convert(fields, Fault)


def _not_negative(value: Number) -> Number:
    if not 0 <= value < 1e9:
        raise ValueError
    return value


class FaultRule(msgspec.Struct):
    """A fault for the next `count` requests, or without a count for a share of all that come."""

    fault: str
    count: int | None = None
    probability: float = 1.0
    path: str | None = None  # only requests of this path


class FaultPlan:
    """The rules set over the admin endpoint; the first that applies to a request is used."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._rules: list[tuple[FaultRule, Fault]] = []

    @property
    def rules(self) -> list[FaultRule]:
        return [rule for rule, _ in self._rules]

    def add(self, rule: FaultRule, seed: int | None = None) -> None:
        """Raises InvalidRequest when the rule makes no sense."""
        fault = parse_fault(rule.fault)
        if (rule.count is not None and rule.count < 1) or not 0.0 <= rule.probability <= 1.0:
            raise InvalidRequest("count is at least 1, and probability lies between 0 and 1")
        if seed is not None:
            self._rng.seed(seed)
        self._rules.append((rule, fault))

    def clear(self) -> None:
        self._rules.clear()

    def draw(self, path: str) -> Fault:
        """The fault for the next request of this path; NO_FAULT for most."""
        for index, (rule, fault) in enumerate(self._rules):
            if rule.path is not None and rule.path != path:
                continue
            if rule.probability < 1.0 and self._rng.random() >= rule.probability:
                continue
            if rule.count is not None:
                rule.count -= 1
                if rule.count == 0:
                    del self._rules[index]
            return fault
        return NO_FAULT
