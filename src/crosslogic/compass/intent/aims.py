"""How much accuracy, latency and cost matter, each alone and against one another. Pure.

Invariant: what is not spoken of is medium; of several that are high, the one named last is the priority.
"""

import re

import msgspec

from crosslogic.compass.intent.model import Level
from crosslogic.compass.intent.text import Text
from crosslogic.compass.specification.model import Priority

_AIM = {
    Priority.LATENCY: r"(?:low |lower |lowest |minimal )?(?:latency|latencies|speed|response times?|"
        r"responsiveness|fast(?:er)?(?: answers| responses)?|quick(?:ness)?)",
    Priority.ACCURACY: r"(?:(?:high|better|best|code|answer|output) )?(?:accuracy|quality|correctness|"
        r"precision|thorough(?:ness)?|accurate)",
    Priority.COST: r"(?:low |lower )?(?:costs?|prices?|budget|money|spend(?:ing)?|cheap(?:ness|er)?)",
}  # fmt: skip
_ANY = "|".join(rf"(?P<{name}>{words})" for name, words in _AIM.items())
_OTHER = "|".join(rf"(?P<other_{name}>{words})" for name, words in _AIM.items())
_MATTERS = (
    r"(?:critical|paramount|crucial|key|essential|vital|most important|top priority|"
    r"the priority|important|(?:the |our )?main concern|"
    r"(?:the )?first|everything|what (?:counts|matters)(?: most)?|a must|number one|decisive|(?:the )?most)"
)
_HIGH = re.compile(
    rf"\b(?:{_ANY})\b(?:\s+\w+){{0,2}}?\s+(?:is|are|being|=|as|must be|has to be|"
    rf"needs to be|comes|matters?)\s+(?:very |absolutely |really |the |our |extremely |"
    rf"most )?{_MATTERS}\b"
    rf"|\b(?:{_ANY.replace('?P<', '?P<b_')})\s+(?:above|before|over) (?:all|everything|anything)"
    rf"|\b(?:priorit(?:y|ise|ize|ising|izing)|focus(?:ed)? on|optimi[sz]ed? for|"
    rf"care (?:most |mainly )?about|emphasis on)\s+(?:is |on |for |"
    rf"the )?(?:{_ANY.replace('?P<', '?P<c_')})\b"
)
_COMPARED = re.compile(
    rf"\b(?:{_ANY})\b(?:\s+\w+){{0,2}}?\s+(?P<than>(?:is |are |being )?(?:(?P<less>less)|"
    rf"more) important (?:(?:to|for) \w+ )?than|matters? (?:(?P<less2>less)|more) than|over|rather than|before|"
    rf"beats)\s+(?:\w+\s+)?(?:{_OTHER})\b"
)
_LOW = re.compile(
    rf"\b(?:{_ANY})\b(?:\s+\w+){{0,2}}?\s+(?:(?:is|are)(?:n't| not)(?: \w+)? (?:critical|"
    rf"important|a concern|an issue|crucial)|(?:doesn't|don't|does not|do not) matter|"
    rf"is (?:secondary|flexible|irrelevant|unimportant|no (?:object|concern|issue))|is not as (?:critical|"
    rf"important)|isn't as (?:critical|important))"
)
_PLAIN_HIGH = {
    Priority.LATENCY: r"\bminimi[sz]\w+ (?:the )?latency\b|"
        r"\blow(?:est)?[- ]latency\b|\bas fast as possible\b|\breal-?time\b|\bsnappy\b|"
        r"\b(?:quick|fast|rapid|swift) (?:answers?|repl(?:y|ies)|responses?)\b|"
        r"\bmust be (?:very )?fast\b|\blightning\b|"
    r"\bresponse time is critical\b|\bfast\b(?! food)|\binstant(?:ly|aneous)?\b|\bspeed matters\b",
    Priority.ACCURACY: r"\bbest (?:possible )?(?:quality|model|accuracy|answers)\b|\bquality must be\b|"
        r"\bhighest (?:quality|accuracy)\b|\bmost accurate\b|"
    r"\b(?:must|has to|have to|needs? to) be (?:right|correct|exact|accurate|precise)\b|"
        r"\b(?:quality|accuracy) (?:comes )?first\b|\bhigh(?:est)?[- ](?:accuracy|quality)\b|\bno (?:errors|"
        r"mistakes|hallucinations)\b|\bstate of the art\b",
    Priority.COST: r"\bminimi[sz]\w+ (?:the |our )?(?:costs?|spend\w*)\b|"
        r"\bcost[- ](?:effective|efficient|conscious|sensitive|efficiency)\b|\bcheap(?:est|"
        r"ly)?\b|\blow(?:est)?[- ](?:cost|price|budget)\b|"
    r"\binexpensive\b|\baffordable\b|\beconomical\b|\bbudget[- ]friendly\b|"
        r"\btight budget\b|\bsav(?:e|ing) money\b|\bas little as possible\b|\bfrugal\b",
}  # fmt: skip
_PLAIN_LOW = {
    Priority.LATENCY: r"\bcan wait\b|\b(?:nobody|no one) cares how long\b|\b(?:however|no matter how) long\b|"
        r"\bwhenever (?:it is|it's|they are|they're) (?:done|ready|finished)\b|"
        r"\bno (?:rush|hurry)\b|\blatency is not\b|\bslow is fine\b|"
        r"\btolerate (?:slightly |somewhat )?(?:higher|more|slow\w*) latency\b|\bovernight\b",
    Priority.ACCURACY: r"\bgood enough\b|\bquality is secondary\b|\brough (?:drafts?|answers?) (?:are|"
        r"is) (?:fine|enough)\b",
    Priority.COST: r"\bmoney (?:is )?no object\b|\bbudget is (?:flexible|no issue|unlimited)\b|"
        r"\bunlimited budget\b|\bwhatever it costs\b|\bcost is no (?:object|issue|concern)\b|"
        r"\bcost doesn't matter\b",
}  # fmt: skip
_HIGH_PLAIN = {aim: re.compile(words) for aim, words in _PLAIN_HIGH.items()}
_LOW_PLAIN = {aim: re.compile(words) for aim, words in _PLAIN_LOW.items()}
_BALANCED = re.compile(r"\b(?:balanced|balance of|good balance|equally important)\b")
_DENIED = re.compile(r"\b(?:not|no|isn't|rather than|less|don't need|without)\s+(?:\w+\s+){0,1}$")
_MOST = 50


class Aims(msgspec.Struct):
    """What a turn says; `last` is the aim that it names last as high."""

    levels: dict[Priority, Level]
    last: Priority | None = None


def aims(text: Text) -> Aims:
    levels: dict[Priority, Level] = {}
    order: list[tuple[int, Priority]] = []
    lower = text.lower

    def high(aim: Priority, at: int) -> None:
        levels[aim] = Level.HIGH
        order.append((at, aim))

    for aim, pattern in _HIGH_PLAIN.items():
        for match in _few(pattern, lower):
            if not _DENIED.search(lower[max(0, match.start() - 24) : match.start()]):
                high(aim, match.start())
    for match in _few(_HIGH, lower):
        named = next((aim for aim in _AIM if match[aim] or match[f"b_{aim}"] or match[f"c_{aim}"]), None)
        if named is not None:
            high(named, match.start())
    for aim, pattern in _LOW_PLAIN.items():
        if pattern.search(lower):
            levels[aim] = Level.LOW
    for match in _few(_LOW, lower):
        for aim in _AIM:
            if match[aim]:
                levels[aim] = Level.LOW
    for match in _few(_COMPARED, lower):
        first = next((aim for aim in _AIM if match[aim]), None)
        second = next((aim for aim in _AIM if match[f"other_{aim}"]), None)
        if first is None or second is None or first is second:
            continue
        if match["less"] or match["less2"]:
            first, second = second, first
        high(first, match.start())
        levels[second] = Level.LOW
    if _BALANCED.search(lower):
        order.append((len(lower), Priority.BALANCED))
    order = [(at, aim) for at, aim in order if aim is Priority.BALANCED or levels.get(aim) is Level.HIGH]
    return Aims(levels, max(order)[1] if order else None)


def _few(pattern: re.Pattern[str], lower: str) -> list[re.Match[str]]:
    found = []
    for match in pattern.finditer(lower):
        found.append(match)
        if len(found) >= _MOST:
            break
    return found
