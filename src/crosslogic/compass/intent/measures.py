"""What the numbers of a turn measure: people, rates, lengths, latencies, money, shares, GPUs. Pure.

Each number is given to the first kind of measure whose words stand around it, so that none counts twice.

Invariant: a number that is denied ("not 200", "instead of 200") measures nothing.
"""

import re
from collections.abc import Callable

import msgspec

from crosslogic.compass.intent import measure_words as patterns
from crosslogic.compass.intent.numbers import Number, numbers
from crosslogic.compass.intent.text import Text
from crosslogic.kernel.money import PUSD_PER_USD

Found = dict[str, float]

_MOST_NUMBERS = 2000
_LEFT, _RIGHT = 48, 64  # characters of context
MOST_USERS = 8_000_000_000

_TOPICS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("budget", re.compile(r"\b(?:budget|spend|afford|cost a)\b")),
    ("requests_per_user_day", re.compile(r"\bhow many (?:requests|messages|questions)\b|\brequests\b.*\bsend")),
    ("peak_qps", re.compile(r"\bpeaks?\b")),
    ("expected_qps", re.compile(r"\bon average\b|\brequests (?:per|a) second\b")),
    ("target_ttft_p95_ms", re.compile(r"\bfirst (?:token|word|character)|\bhow (?:soon|quickly|fast)\b")),
    ("target_e2e_latency_p95_ms", re.compile(r"\bhow long\b|\bwhole answer\b")),
)


def topic_of(question: str) -> str | None:
    """What a question of ours was about, where a number alone would answer it."""
    return next((topic for topic, words in _TOPICS if words.search(question.lower())), None)


class Measures(msgspec.Struct):
    """Fields of the intent that hold a number, as far as this turn tells them, and what stood out."""

    values: Found
    doubts: list[str]
    bare: list[Number]  # numbers that measure nothing that we know


def measure(text: Text, topic: str | None = None) -> Measures:
    """The numbers of a turn; `topic` is what was asked before it (`topic_of`)."""
    found = Measures({}, [], [])
    spans = numbers(text.lower)[:_MOST_NUMBERS]
    for at, number in enumerate(spans):
        if at and patterns.KTOKENS.match(_between(text.lower, spans[at - 1], number)):
            continue  # "$2 per 1 million tokens": a unit of the number before it
        left_edge = max(number.start - _LEFT, spans[at - 1].end if at else 0)
        left = text.lower[left_edge : number.start]
        right_edge = min(number.end + _RIGHT, spans[at + 1].start if at + 1 < len(spans) else len(text.lower))
        right = text.lower[number.end : right_edge].partition("\n")[0]  # a line of a list has one number
        if patterns.DENIED.search(left) and not patterns.NOT_DENIED.search(left):
            continue
        if patterns.NEGATIVE.search(left):
            found.doubts.append(
                f"{-number.value:,g} {right.split(' ')[1][:20] if ' ' in right else ''} cannot be".replace("  ", " ")
            )
            continue
        place = _Place(text, number, left, right, topic)
        if not any(kind(place, found) for kind in _KINDS):
            found.bare.append(number)
    parallel = patterns.PARALLEL.search(text.lower)
    if parallel is not None:
        found.values.setdefault("tensor_parallel", float(parallel["n"]))
    _shares(text, found)
    _factors(text, found)
    return found


def _between(lower: str, before: Number, number: Number) -> str:
    """From the end of one number to just behind the next one's unit."""
    return lower[before.end : number.end + 8] if number.start - before.end < 24 else ""


class _Place(msgspec.Struct):
    text: Text
    number: Number
    left: str
    right: str
    topic: str | None = None

    @property
    def clause(self) -> str:
        return self.text.clause_of(self.number.start)

    @property
    def within_clause(self) -> str:
        """What follows, no further than the clause."""
        clause = self.text.clauses[self.text.clause_at(self.number.start)]
        return self.right[: max(0, clause.end - self.number.end)]

    @property
    def near(self) -> str:
        """The words around, no further than the clause."""
        clause = self.text.clauses[self.text.clause_at(self.number.start)]
        left = self.text.lower[max(clause.start, self.number.start - _LEFT) : self.number.start]
        return left + " " + self.text.lower[self.number.end : min(clause.end, self.number.end + _RIGHT)]


def _money(place: _Place, found: Measures) -> bool:
    right = place.right
    currency = bool(patterns.MONEY_BEFORE.search(place.left) or patterns.MONEY_AFTER.match(right))
    period = patterns.MONTH.match(right) or patterns.HOUR.match(right) or patterns.YEAR.match(right)
    announced = place.topic == "budget" or patterns.BUDGET_BEFORE.search(place.left)
    if not currency and not (announced and (period or not _unit_follows(right))):
        return False
    amount = place.number.value / (100 if patterns.CENTS.match(right) else 1)
    if patterns.FOREIGN.search(place.left[-5:] + right[:8]):
        found.doubts.append(f"{amount:g} is taken as US dollars; give amounts in them")
    if patterns.KWH.match(right):
        found.values["power_per_kwh_pusd"] = amount * PUSD_PER_USD
    elif tokens := patterns.KTOKENS.match(place.text.lower[place.number.end : place.number.end + _RIGHT]):
        per = 1e6 if tokens["n"].startswith(("1m", "1 m", "1,000,000", "1000000", "million", "m")) else 1e3
        found.values["per_1k_tokens_pusd"] = amount * PUSD_PER_USD * 1e3 / per
    elif patterns.HOUR.match(right) or re.search(r"\bhourly\b", place.left):
        found.values["per_hour_pusd"] = amount * PUSD_PER_USD
    elif patterns.YEAR.match(right) or re.search(r"\b(?:yearly|annual)\b", place.left):
        found.values["per_month_pusd"] = amount / 12 * PUSD_PER_USD
    elif patterns.DAY.match(right):
        found.values["per_month_pusd"] = amount * 730 / 24 * PUSD_PER_USD
    else:
        found.values["per_month_pusd"] = amount * PUSD_PER_USD
    return True


def _unit_follows(right: str) -> bool:
    units = (patterns.AFTER_PEOPLE, patterns.TIME, patterns.TOKENS, patterns.PERCENT)
    return any(unit.match(right) for unit in units)


def _percent(place: _Place, found: Measures) -> bool:
    if not patterns.PERCENT.match(place.right):
        return False
    share = place.number.value / 100
    near = place.near
    if patterns.UPTIME.search(near) and 0.5 < share < 1:
        found.values["reliability_target"] = share
    elif patterns.CACHED.search(near) and share < 1:
        found.values["prefix_hit_rate"] = share
    elif patterns.AT_ONCE.search(near) and 0 < share <= 1:
        found.values["active_share"] = share
    elif re.search(r"\bmore\b.{0,20}\b(?:users|people)", place.right) and share < 100:
        found.values["users_factor"] = 1 + share
    elif 0.98 < share < 1:
        found.values["reliability_target"] = share
    return True


def _time(place: _Place, found: Measures) -> bool:
    unit = patterns.TIME.match(place.right)
    if unit is None or (place.number.words and unit["unit"] == "s"):
        return False
    ms = place.number.value * patterns.TIME_MS.get(unit["unit"], patterns.TIME_MS.get(unit["unit"][:2], 1.0))
    clause = place.clause
    before = clause[: max(0, place.number.start - place.text.clauses[place.text.clause_at(place.number.start)].start)]
    labelled = patterns.LABEL.search(place.left)
    if labelled is not None:
        found.values[patterns.LABELS[labelled["label"].replace("-", "")]] = ms
        return True
    # The nearest words decide where one clause has several latencies: those that follow at once, else those before.
    after = place.right[unit.end() : unit.end() + 24]
    for words in (after, before[-40:], clause):
        if patterns.BETWEEN.search(words):
            found.values["target_itl_p95_ms"] = ms
            return True
        if patterns.FIRST.search(words):
            found.values["target_ttft_p95_ms"] = ms
            return True
        if patterns.WHOLE.search(words):
            found.values["target_e2e_latency_p95_ms"] = ms
            return True
    if patterns.LATENCY.search(clause):
        found.values["target_ttft_p95_ms" if ms < 1500 else "target_e2e_latency_p95_ms"] = ms
    elif place.topic in ("target_ttft_p95_ms", "target_e2e_latency_p95_ms"):
        found.values[place.topic] = ms
    return True


def _pace(place: _Place, found: Measures) -> bool:
    match = patterns.PACE.match(place.right)
    if match is None or not (match["what"] or re.search(r"\btokens?\b[^,.;]*$", place.left)):
        return False
    if 0 < place.number.value <= patterns.MOST_PACE:
        found.values["target_itl_p95_ms"] = 1000 / place.number.value
    return True


def _nines(place: _Place, found: Measures) -> bool:
    """Four nines: 99.99%."""
    if not re.match(r"^\s*nines\b", place.right) or not 1 <= place.number.value <= 9:
        return False
    found.values["reliability_target"] = 1 - 10**-place.number.value
    return True


def _multiple(place: _Place, found: Measures) -> bool:
    """So many times what is usual."""
    if not patterns.MULTIPLE.match(place.right) or not 1 < place.number.value <= 100:
        return False
    found.values["peak_over_mean"] = place.number.value
    return True


def _tokens(place: _Place, found: Measures) -> bool:
    follows = patterns.TOKENS.match(place.right)
    window = re.match(r"^\s*-?\s*(?:token\s+)?(?:context|window)", place.right) or re.search(
        r"\b(?:context|window)(?: length| window| size)?(?: of|:)?\s*$", place.left
    )
    bare = re.match(r"^\s*(?P<side>prompts?|inputs?)\b(?!\s*(?:(?:per|an?|each|every|daily)\b|/))", place.right)
    if bare is not None and not follows and place.number.value >= 128:
        found.values["prompt_length_avg"] = place.number.value  # "8k prompts"
        return True
    if not follows and not window:
        labelled = re.search(
            r"\b(?P<side>prompts?|inputs?|outputs?|answers?)(?: length| tokens)?(?: of|:|=| is|"
            r" are)\s*(?:about |around )?$",
            place.left,
        )
        if labelled is None or place.number.value < 16 or _unit_follows(place.right):
            return False
    tokens = place.number.value
    near = place.left[-32:] + " " + place.within_clause[:24]
    right = place.within_clause
    p95 = re.search(r"\b(?:p95|95th|at most|up to|max(?:imum)?|longest|no more than)\b", near) is not None
    if window or (follows and patterns.CONTEXT.search(right)):
        found.values["context_tokens"] = tokens
        return True
    # What stands before the number decides ("prompts of 2,000 tokens"), else what follows ("2,000 tokens of input"),
    # but for "250-token answers".
    order = (right, place.left[-32:]) if re.match(r"^[- ]token [a-z]", right) else (place.left[-32:], right)
    for words in order:
        sides = [(match.end(), "generation_length") for match in patterns.OUTPUT.finditer(words)]
        sides += [(match.end(), "prompt_length") for match in patterns.PROMPT.finditer(words)]
        if sides:
            side = min(sides)[1] if words is right else max(sides)[1]
            found.values[f"{side}_{'p95' if p95 else 'avg'}"] = tokens
            break
    return True


def _gpus(place: _Place, found: Measures) -> bool:
    count = place.number.value
    if patterns.TENSOR.search(place.left) or patterns.PARALLEL_WAYS.match(place.right):
        found.values["tensor_parallel"] = count
        return True
    if patterns.GPUS_AFTER.match(place.right) or (patterns.TIMES_GPU.match(place.right) and count <= 1024):
        if place.number.value > 100_000:
            return True
        found.values["max_gpus"] = count
        return True
    return False


def _rate(place: _Place, found: Measures) -> bool:
    match = patterns.RATE.match(place.right)
    if match is None:
        period = patterns.PERIOD.match(place.right)
        if place.topic != "requests_per_user_day" or period is None:
            return False
        found.values[place.topic] = place.number.value * 86400 / patterns.PER_SECOND[period["unit"]]
        return True
    direct = match["what"] in ("qps", "rps", "tps")
    if not direct and (match["per"] is None or match["unit"] is None):
        daily = re.match(r"^\s*[a-z]+\s+(?:daily|a day|per day)", place.right)
        if not daily:
            return False
    seconds = 1.0 if direct else patterns.PER_SECOND[match["unit"] or "day"]
    value = place.number.value
    if not direct and patterns.EACH.search(place.clause):
        if seconds <= 60:
            found.values["requests_per_active_user_minute"] = value * 60 / seconds
        else:
            found.values["requests_per_user_day"] = value * 86400 / seconds
    elif patterns.PEAK.search(place.left[-30:]) or patterns.PEAK_AFTER.match(place.right[match.end() :]):
        found.values["peak_qps"] = value / seconds
    else:
        found.values["expected_qps"] = value / seconds
    return True


def _people(place: _Place, found: Measures) -> bool:
    number = place.number
    after = None if patterns.ATTRIBUTE.match(place.right) else patterns.AFTER_PEOPLE.match(place.right)
    before = patterns.BEFORE_PEOPLE.search(place.left)
    follows = re.match(r"^\s*(?:of them |of these |people |users |will be |are |who )?", place.right)
    at_once = patterns.AT_ONCE.match(place.right[follows.end() :].lstrip()) if follows else None
    behind = place.within_clause[after.end() :] if after else ""
    concurrent = at_once or (after and (patterns.AT_ONCE.search(after[0]) or patterns.SOON_AT_ONCE.match(behind)))
    announced = before is not None and not before[0].strip().startswith("for") and not _busy(place.right)
    if not after and not concurrent and not announced:
        return False
    if number.value > MOST_USERS:
        found.doubts.append(f"{number.value:g} users are more than there are people; say how many")
        return True
    if concurrent:
        found.values["concurrent_users"] = number.value
        return True
    found.values["user_count"] = max(found.values.get("user_count", 0.0), number.value)
    if number.is_range and found.values["user_count"] == number.value:
        found.values["user_count_min"], found.values["user_count_max"] = number.low, number.high
    return True


def _busy(right: str) -> bool:
    """Whether a unit of something else follows."""
    return re.match(r"^\s*(?:pages?|hours?|days?|years?|weeks?|months?|gb|gib|b\b|languages?|%|x\b)", right) is not None


_KINDS: tuple[Callable[[_Place, Measures], bool], ...] = (
    _money,
    _percent,
    _nines,
    _time,
    _pace,
    _tokens,
    _gpus,
    _rate,
    _multiple,
    _people,
)

_SHARE_WORDS = {
    "half": 0.5, "a third": 1 / 3, "one third": 1 / 3, "two thirds": 2 / 3, "a quarter": 0.25, "one quarter": 0.25,
    "three quarters": 0.75, "a fifth": 0.2, "one fifth": 0.2, "two fifths": 0.4, "a tenth": 0.1, "one tenth": 0.1,
    "all": 1.0, "one in ten": 0.1, "one in five": 0.2, "one in four": 0.25, "one in three": 1 / 3,
    "every tenth": 0.1, "every fifth": 0.2,
}  # fmt: skip
_SHARE = re.compile(
    rf"\b(?P<share>{'|'.join(sorted(_SHARE_WORDS, key=len, reverse=True))})\b(?: of)?(?P<who>[a-z' ]{{0,40}})"
)


def _shares(text: Text, found: Measures) -> None:
    for match in _SHARE.finditer(text.lower):
        clause = text.clause_of(match.start())
        share = _SHARE_WORDS[match["share"]]
        if patterns.AT_ONCE.search(clause) and "active_share" not in found.values:
            found.values["active_share"] = share
        elif share < 1 and _COMMON.search(match["who"]):
            found.values.setdefault("prefix_hit_rate", share)


_COMMON = re.compile(r"\bprompts?\b[a-z ]*\b(?:common|shared|same|identical|cached)\b")
_GROWTH = {"doubles": 2.0, "double": 2.0, "triples": 3.0, "triple": 3.0, "quadruples": 4.0, "twice": 2.0, "halve": 0.5}
_PEAK_GROWTH = re.compile(
    r"\b(?:traffic|load|demand|usage|volume|requests|"
    r"peaks?)\b[a-z ,'-]{0,24}\b(?P<word>doubles?|triples?|quadruples|twice)\b"
    r"|\b(?P<word2>twice|double|triple)\b[a-z ]{0,20}\b(?:at|in|during) (?:the )?peaks?\b"
    r"|\bpeaks?\b[a-z ]{0,20}(?P<n>\d{1,3}(?:\.\d{1,2})?)\s?(?:x|×|times|-?fold)"
    r"|(?P<m>\d{1,3}(?:\.\d{1,2})?)\s?(?:x|×|times|-?fold)[a-z ]{0,24}\b(?:peaks?|at peak|rush|spikes?)"
)
_TIMES_WORDS = {"half": 0.5, "double": 2.0, "triple": 3.0, "halve": 0.5, "twice": 2.0}
_BUDGET_GROWTH = re.compile(r"\b(?P<word>double|triple|halve|twice|half)\b[a-z ]{0,12}\b(?:budget|money)\b")
_USER_GROWTH = re.compile(
    r"\b(?P<word>double|triple|halve|twice|half)\b[a-z ]{0,20}\b(?:users?|number|people|"
    r"headcount|audience|that many|as many)\b"
)


def _factors(text: Text, found: Measures) -> None:
    budget = _BUDGET_GROWTH.search(text.lower)
    if budget and not any(name in found.values for name in ("per_month_pusd", "per_hour_pusd")):
        found.values["budget_factor"] = _TIMES_WORDS[budget["word"]]
    users = _USER_GROWTH.search(text.lower)
    if users and "user_count" not in found.values:
        found.values["users_factor"] = _TIMES_WORDS[users["word"]]
        return
    peak = _PEAK_GROWTH.search(text.lower)
    if peak:
        found.values["peak_over_mean"] = (
            _GROWTH[word] if (word := peak["word"] or peak["word2"]) else float(peak["n"] or peak["m"])
        )
