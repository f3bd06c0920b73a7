"""Numbers as people write them: 1,500, 1.5k, five thousand, several hundred, 5 lakh, 100 to 200, thousands. Pure.

Invariant: what is found never overlaps and stands in the order of the text; a vague amount has the range that it may
mean, and a value in it.
"""

import re

import msgspec

_DIGITS = r"\d{1,3}(?:,\d{2,3}){1,6}(?:\.\d{1,9})?|\d{1,18}(?:\.\d{1,9})?"
_LARGEST = 1e18
_SCALES = {
    "k": 1e3, "thousand": 1e3, "thousands": 1e3, "grand": 1e3, "m": 1e6, "mn": 1e6, "mio": 1e6, "million": 1e6,
    "millions": 1e6, "bn": 1e9, "billion": 1e9, "billions": 1e9, "trillion": 1e12, "hundred": 1e2, "dozen": 12.0,
    "lakh": 1e5, "lakhs": 1e5, "lac": 1e5, "crore": 1e7, "crores": 1e7, "l": 1e5, "cr": 1e7,
}  # fmt: skip
_SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_VAGUE = {  # value, least, most of what is counted
    "couple": (2.0, 2.0, 3.0),
    "few": (3.0, 2.0, 5.0),
    "several": (4.0, 3.0, 9.0),
    "some": (3.0, 1.0, 9.0),
    "many": (5.0, 2.0, 9.0),
}
_PLURALS = {"hundreds": 1e2, "thousands": 1e3, "millions": 1e6, "dozens": 12.0}

_WORDS = "|".join(sorted(_SMALL, key=len, reverse=True))
_SCALE_WORDS = "hundred|thousand|million|billion|trillion|dozen|lakhs?|crores?"
_TOKEN = rf"(?:{_WORDS})(?:-(?:{_WORDS}))?"
_NUMBER = re.compile(
    rf"(?P<tens>(?:tens|hundreds|dozens) of )?(?P<plural>\b(?:hundreds|thousands|millions|dozens))\b"
    r"|(?<![\w.])(?P<mantissa>\d{1,6}(?:\.\d{1,6})?)(?:e\+?(?P<exponent>\d{1,3})|\^(?P<power>\d{1,3}))(?![\w.])"
    rf"|(?<![\w.])(?P<digits>{_DIGITS})(?P<plus>\+)?(?:[ -]?(?P<scale>thousands?|grand|"
    rf"million|billion|trillion|hundred|dozen|lakhs?|lac|crores?|cr|mio|mn|bn|k|"
    rf"l|m)(?![a-z0-9]))?"
    rf"|\b(?P<vague>couple|few|several|some|many)(?: of)? (?P<vaguescale>{_SCALE_WORDS})\b"
    rf"|\b(?:(?P<words>{_TOKEN}(?:[ -](?:and )?(?:{_TOKEN}|{_SCALE_WORDS})){{0,8}})|"
    rf"(?P<a>half an?|an?) (?P<ascale>{_SCALE_WORDS})|(?P<half>half an?)(?= (?:second|minute|hour)))\b"
)
_BETWEEN = re.compile(r"\s*(?:-|–|—|to|and|or|up to|…|\.\.\.?)\s*")


class Number(msgspec.Struct, frozen=True):
    value: float
    low: float
    high: float
    start: int
    end: int
    words: bool = False  # spelled out

    @property
    def is_range(self) -> bool:
        return self.low != self.high


def numbers(text: str) -> list[Number]:
    """All numbers of a text, ranges joined: their value is their upper end."""
    singles = [found for match in _NUMBER.finditer(text) if (found := _number(match)) is not None]
    joined: list[Number] = []
    for number in singles:
        before = joined[-1] if joined else None
        if before is not None and _joins(text, before, number):
            joined[-1] = _range(before, number)
        else:
            joined.append(number)
    return joined


def _joins(text: str, before: Number, after: Number) -> bool:
    if before.is_range or after.is_range or after.start - before.end > 8:
        return False
    between = text[before.end : after.start]
    if not _BETWEEN.fullmatch(between) or after.value <= before.value * (0.001 if after.value >= 1000 else 1):
        return False
    if between.strip() in ("and", "or"):
        return text[max(0, before.start - 20) : before.start].rstrip().endswith(("between", "from")) or "or" in between
    return True


def _range(before: Number, after: Number) -> Number:
    low = before.low
    scale = after.value / low if low else 0
    if low < 1000 <= after.value and scale >= 1000:  # "1 to 2 thousand", "5-10k"
        low *= 1e6 if after.value >= 1e6 else 1e3
    return Number(after.high, min(low, after.low), after.high, before.start, after.end)


def _number(match: re.Match[str]) -> Number | None:
    start, end = match.start(), match.end()
    if match["plural"]:
        unit = _PLURALS[match["plural"]]
        if match["tens"]:
            unit *= {"tens of ": 10.0, "hundreds of ": 100.0, "dozens of ": 12.0}[match["tens"]]
        return Number(3 * unit, unit, 10 * unit, start, end, words=True)
    if match["mantissa"]:
        value = _scientific(float(match["mantissa"]), match["exponent"], match["power"])
        return Number(value, value, value, start, end)
    if match["digits"]:
        value = float(match["digits"].replace(",", "")) * _SCALES.get(match["scale"] or "", 1.0)
        value = min(value, _LARGEST)
        return Number(value, value, value, start, end)
    if match["vague"]:
        value, low, high = _VAGUE[match["vague"]]
        unit = _SCALES[match["vaguescale"]]
        return Number(value * unit, low * unit, high * unit, start, end, words=True)
    if match["half"]:
        return Number(0.5, 0.5, 0.5, start, end, words=True)
    if match["a"]:
        value = _SCALES[match["ascale"]] * (0.5 if match["a"].startswith("half") else 1.0)
        return Number(value, value, value, start, end, words=True)
    value = _spelled(match["words"])
    return Number(value, value, value, start, end, words=True)


def _scientific(mantissa: float, exponent: str | None, power: str | None) -> float:
    """1e12, 10^12; what is too large for a number is as large as any."""
    try:
        return min(mantissa * 10.0 ** int(exponent) if exponent is not None else mantissa ** int(power or 1), _LARGEST)
    except OverflowError:
        return _LARGEST


def _spelled(words: str) -> float:
    """ "two hundred and fifty thousand" is (2 x 100 + 50) x 1000."""
    total = current = 0.0
    for word in re.split(r"[ -]+", words):
        if word in _SMALL:
            current += _SMALL[word]
        elif word in _SCALES:
            scale = _SCALES[word]
            current = max(1.0, current) * scale
            if scale >= 1000:
                total, current = total + current, 0.0
    return min(total + current, _LARGEST)
