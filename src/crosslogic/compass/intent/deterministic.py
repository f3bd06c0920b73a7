"""The extractor that is always there: reads each turn by its words and numbers, and lets later turns correct earlier.

Invariant: any text at all gives an intent, in time proportional to its length, the same each time; text changes the
fields that it speaks of and nothing else, whatever it demands.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from crosslogic.compass.intent.aims import aims
from crosslogic.compass.intent.measures import Measures, measure, topic_of
from crosslogic.compass.intent.model import BudgetConstraint, DeploymentIntent, Level
from crosslogic.compass.intent.names import Name, names
from crosslogic.compass.intent.ports import Reading, Role, Turn
from crosslogic.compass.intent.terms import terms
from crosslogic.compass.intent.text import MOST_CHARACTERS, MOST_TURNS, Text, read
from crosslogic.compass.intent.use_case import choose, score
from crosslogic.compass.specification.model import DatacenterContext, DeploymentModel, Priority, UseCase
from crosslogic.kernel.money import PUSD_PER_USD

NAME = "deterministic"
_MOST_DESCRIPTION = 4000
_WHOLE = (
    "user_count",
    "user_count_min",
    "user_count_max",
    "concurrent_users",
    "context_tokens",
    "max_gpus",
    "tensor_parallel",
)
_BUDGET = ("per_month_pusd", "per_hour_pusd", "per_1k_tokens_pusd")
_UNBOUNDED_PUSD = 9e18  # nine million dollars, and about what 64 bits hold
_DECLINES = re.compile(
    r"\b(?:(?:i )?(?:do not|don't|dont) (?:really )?(?:know|care)|no idea|not sure|unsure|"
    r"no preference|doesn't matter|does not matter|"
    r"skip|any(?:thing)? is fine|up to you|you (?:choose|decide)|idk|whatever)\b"
)
_ADDS = re.compile(r"\b(?:also|too|as well|additionally|plus|or|besides|another)\b")
_USERS_ASKED = re.compile(r"\bhow many (?:people|users|employees|customers|persons)\b")
_WAS_PEAK = re.compile(r"\bthat(?: is| was|'s) (?:at )?(?:the |our )?(?:peak|maximum|busiest)")
_USUAL = re.compile(r"\b(?:on average|usually|normally|the (?:mean|average))\b")
_KINDS = {"model": "models", "gpu": "gpus", "cloud": "clouds", "region": "regions"}


class DeterministicExtractor:
    """`Extractor` by rules; needs nothing."""

    async def extract(self, turns: Sequence[Turn]) -> Reading:
        return Reading(extract(turns), NAME)

    async def close(self) -> None:
        """Nothing is held."""


def extract(turns: Sequence[Turn]) -> DeploymentIntent:
    """The intent of a conversation."""
    state = _State()
    asked: Turn | None = None
    for turn in turns[-MOST_TURNS:]:
        if turn.role is Role.ASSISTANT:
            asked = turn
        else:
            state.hear(turn.content, asked)
            asked = None
    return state.intent()


class _State:
    """What was heard so far."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._levels: dict[Priority, Level] = {}
        self._scores: list[dict[UseCase, float]] = []
        self._said: list[str] = []
        self._doubts: list[str] = []
        self._declined: list[str] = []
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._refused: dict[str, tuple[str, ...]] = {}
        self._unknown: dict[str, tuple[str, ...]] = {}

    def hear(self, content: str, asked: Turn | None) -> None:
        text = read(content)
        self._said.append(text.said.strip()[:_MOST_DESCRIPTION])
        if text.cut:
            self._doubts.append(f"only the first {MOST_CHARACTERS:,} characters of a message are read")
        field = asked.asked if asked is not None else None
        if field is not None and _DECLINES.search(text.lower) and len(text.lower) < 200:
            self._declined.append(field)
        self._scores.append(score(text))
        self._hear_aims(text)
        self._fields.update(self._of_terms(text))
        topic = None if asked is None else topic_of(asked.content)
        self._hear_measures(measure(text, topic), text, asked)
        self._hear_names(text, names(text))

    def _hear_aims(self, text: Text) -> None:
        said = aims(text)
        self._levels.update(said.levels)
        if said.last is not None:
            self._fields["priority"] = said.last
        elif self._levels.get(self._fields.get("priority", Priority.BALANCED), Level.HIGH) is not Level.HIGH:
            self._fields.pop("priority", None)

    def _of_terms(self, text: Text) -> dict[str, Any]:
        from_words = terms(text)
        if "domains" in from_words:
            from_words["domains"] = tuple(dict.fromkeys((*self._fields.get("domains", ()), *from_words["domains"])))
        return from_words

    def _hear_measures(self, found: Measures, text: Text, asked: Turn | None) -> None:
        values = dict(found.values)
        self._doubts += found.doubts
        if "users_factor" in values:
            factor = values.pop("users_factor")
            if "user_count" in self._fields:
                values["user_count"] = self._fields["user_count"] * factor
        if _WAS_PEAK.search(text.lower) and "expected_qps" in self._fields:
            values.setdefault("peak_qps", self._fields.pop("expected_qps"))
            usual = _USUAL.search(text.lower)
            if usual is not None and len(found.bare) == 1:
                values.setdefault("expected_qps", found.bare[0].value)
        if "budget_factor" in values:
            factor = values.pop("budget_factor")
            values.update({name: self._fields[name] * factor for name in _BUDGET[:2] if name in self._fields})
        if not values and len(found.bare) == 1 and asked is not None and found.bare[0].value >= 1:
            users = "user_count" if _USERS_ASKED.search(asked.content.lower()) else None
            field = asked.asked or users or topic_of(asked.content)
            if field in ("user_count", "concurrent_users", "expected_qps", "peak_qps"):
                values[field] = found.bare[0].value
        if "user_count" in values and "user_count_min" not in values:
            self._fields.pop("user_count_min", None)
            self._fields.pop("user_count_max", None)
        if "max_gpus" in values and not _limits(text):
            values.pop("max_gpus")
        for name in _BUDGET:
            if values.get(name, 0.0) >= _UNBOUNDED_PUSD:
                self._doubts.append(
                    f"a budget of {values.pop(name) / PUSD_PER_USD:,.0f} USD bounds nothing and is left out"
                )
        self._fields.update(values)

    def _hear_names(self, text: Text, found: list[Name]) -> None:
        for kind, plural in _KINDS.items():
            wanted = _ids(found, kind, refused=False)
            refused = _ids(found, kind, refused=True)
            if refused:
                wanted = tuple(each for each in wanted if each not in refused)
                kept = tuple(each for each in self._wanted.get(plural, ()) if each not in refused)
                self._wanted[plural] = kept
                self._refused[plural] = tuple(dict.fromkeys((*self._refused.get(plural, ()), *refused)))
            if wanted:
                before = self._wanted.get(plural, ()) if _ADDS.search(text.lower) else ()
                self._wanted[plural] = tuple(dict.fromkeys((*before, *wanted)))
                self._refused[plural] = tuple(each for each in self._refused.get(plural, ()) if each not in wanted)
        for kind, plural in (("unknown_model", "models"), ("unknown_gpu", "gpus")):
            named = tuple(name for each in found if each.kind == kind and not each.refused for name in each.ids)
            if named:
                self._unknown[plural] = tuple(dict.fromkeys((*self._unknown.get(plural, ()), *named)))

    def intent(self) -> DeploymentIntent:
        fields = {name: value for name, value in self._fields.items() if name in DeploymentIntent.__struct_fields__}
        for name in _WHOLE:
            if name in fields:
                fields[name] = int(fields[name])
        use_case = choose(self._scores)
        return DeploymentIntent(
            use_case=use_case,
            use_case_description="\n".join(self._said)[-_MOST_DESCRIPTION:],
            accuracy_priority=self._levels.get(Priority.ACCURACY, Level.MEDIUM),
            cost_priority=self._levels.get(Priority.COST, Level.MEDIUM),
            latency_priority=self._levels.get(Priority.LATENCY, Level.MEDIUM),
            budget=BudgetConstraint(*(_pusd(self._fields.get(name)) for name in _BUDGET)),
            datacenter=self._datacenter(),
            preferred_models=self._wanted.get("models", ()),
            preferred_gpus=self._wanted.get("gpus", ()),
            regions=self._wanted.get("regions", ()),
            clouds=self._wanted.get("clouds", ()),
            excluded_models=self._refused.get("models", ()),
            excluded_gpus=self._refused.get("gpus", ()),
            excluded_regions=self._refused.get("regions", ()),
            excluded_clouds=self._refused.get("clouds", ()),
            unknown_models=self._unknown.get("models", ()),
            unknown_gpus=self._unknown.get("gpus", ()),
            declined=tuple(dict.fromkeys(self._declined)),
            doubts=tuple(dict.fromkeys(self._doubts)),
            **fields,
        )

    def _datacenter(self) -> DatacenterContext | None:
        power = _pusd(self._fields.get("power_per_kwh_pusd"))
        pue, months = self._fields.get("pue"), self._fields.get("amortization_months")
        owned = self._fields.get("deployment_model") in (DeploymentModel.PURCHASE, DeploymentModel.OWNED_HARDWARE)
        if power is None and pue is None and not (months and owned):
            return None
        usual = DatacenterContext()
        return msgspec.structs.replace(
            usual,
            power_per_kwh_pusd=power,
            pue=usual.pue if pue is None else pue,
            amortization_months=months or usual.amortization_months,
        )


def _pusd(amount: float | None) -> int | None:
    return None if amount is None else round(amount)


def _ids(found: list[Name], kind: str, *, refused: bool) -> tuple[str, ...]:
    ids = (each for name in found if name.kind == kind and name.refused is refused for each in name.ids)
    return tuple(dict.fromkeys(ids))


def _limits(text: Text) -> bool:
    """Whether a number of GPUs is a bound: there are so many, or not more are wanted."""
    return _BOUNDS.search(text.lower) is not None


_BOUNDS = re.compile(
    r"\b(?:at most|no more than|not more than|max(?:imum)?|up to|limit(?:ed)?|only|own|"
    r"have|has|existing|on (?:our |the |an? )?"
    r"(?:\d|one|two|three|four|eight)|with (?:\d|one|two|three|four|eight))\b"
)
