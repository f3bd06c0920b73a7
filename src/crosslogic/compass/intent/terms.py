"""How it is to run, in words: class of experience, quality, bursts, market, ownership, precision, subject. Pure.

Invariant: a word behind a denial says nothing.
"""

import re
from typing import Any

from crosslogic.compass.intent.model import Burstiness
from crosslogic.compass.intent.text import Text
from crosslogic.compass.specification.model import DeploymentModel, ExperienceClass, Market, QualityTier

_CLASSES: tuple[tuple[ExperienceClass, str], ...] = (
    (
        ExperienceClass.BATCH,
        r"\bbatch\b|\bovernight\b|\bnightly\b|\boffline\b|\bby (?:the )?next (?:morning|"
        r"day)\b|\basync(?:hronous(?:ly)?)?\b",
    ),
    (ExperienceClass.INSTANT, r"\binstant(?:ly|aneous(?:ly)?)?\b|\breal-?time\b|\bimmediate(?:ly)?\b"),
    (ExperienceClass.DEFERRED, r"\bdeferred\b|\bin the background\b"),
    (ExperienceClass.INTERACTIVE, r"\binteractive(?:ly)?\b"),
)
_TIERS: tuple[tuple[QualityTier, str], ...] = (
    (
        QualityTier.VERY_HIGH,
        r"\bvery high quality\b|\bfrontier\b|\bbest (?:possible )?(?:quality|model)\b|"
        r"\bstate of the art\b|\bquality must be the best\b|\btop[- ]quality\b",
    ),
    (QualityTier.HIGH, r"\bhigh[- ]quality\b|\bquality:? high\b"),
    (QualityTier.STANDARD, r"\bstandard quality\b|\bgood enough\b|\baverage quality\b"),
)
_BURSTS: tuple[tuple[Burstiness, str], ...] = (
    (
        Burstiness.HIGH,
        r"\b(?:very|highly|extremely) (?:bursty|spiky)\b|\bburst(?:y|s)\b|\bspiky\b|"
        r"\bunpredictable\b",
    ),
    (
        Burstiness.DIURNAL,
        r"\bdiurnal\b|\boffice hours\b|\bbusiness hours\b|\bduring the day\b|"
        r"\bworking hours\b|\bday ?time only\b",
    ),
    (
        Burstiness.STEADY,
        r"\bsteady\b|\bconstant (?:load|traffic|rate)\b|\beven(?:ly)? (?:load|spread)\b|"
        r"\bflat (?:load|traffic)\b",
    ),
    (Burstiness.MODERATE, r"\bmoderate(?:ly)? (?:burst\w*|spik\w*|traffic|peaks)\b"),
)
_MARKETS: tuple[tuple[Market, str], ...] = (
    (Market.SPOT, r"\bspot\b(?!-on)|\bpre-?emptible\b|\binterruptible\b"),
    (
        Market.RESERVED,
        r"\breserved\b|\breservations?\b|\bcommitted use\b|\bsavings? plan\b|\b(?:one|1|three|"
        r"3)[- ]year (?:commit\w*|term|contract)\b",
    ),
    (Market.ON_DEMAND, r"\bon-?\s?demand\b|\bpay[- ]as[- ]you[- ]go\b"),
)
_OWNERSHIP: tuple[tuple[DeploymentModel, str], ...] = (
    (
        DeploymentModel.PURCHASE,
        r"\b(?:buy|buying|purchase|purchasing|acquire|invest in)\b(?:\s+\S+){0,4}?\s+(?:gpus?|"
        r"hardware|servers?|machines|cards|h\d00s?|a\d00s?|l40s?)\b|\bcapex\b",
    ),
    (
        DeploymentModel.OWNED_HARDWARE,
        r"\b(?:we|i|already|company) (?:already )?(?:own|have|has|"
        r"operate)\b(?:\s+\S+){0,4}?\s*(?:gpus?|cards?|servers?|h\d00s?|a\d00|l40s?|t4s?|"
        r"v100s?)\b|"
        r"\b(?:our|existing|own) (?:own )?(?:gpus?|hardware|servers|machines|cluster|rack)\b|"
        r"\bowned (?:gpus?|cards?|servers?|hardware|machines)\b|"
        r"\b(?:gpus?|cards|machines|servers|hardware) of our own\b|\bon-?prem(?:ises?)?\b|"
        r"\bin-house hardware\b|\b(?:in|on) our (?:own )?(?:racks?|basement|server room)\b|"
        r"\b(?:our|own) data ?cent(?:er|re)\b",
    ),
    (DeploymentModel.CLOUD_RENTAL, r"\bcloud rental\b|\brent(?:ed|ing|al)?\b|\bin the cloud\b"),
)
_PRECISIONS: tuple[tuple[str, str], ...] = (
    ("fp8", r"\bfp-?8\b|\b8[- ]?bit float\w*\b"),
    ("int8", r"\bint-?8\b|\bw8a8\b|\b8[- ]?bit\b(?! float)"),
    ("int4", r"\bint-?4\b|\bw4a16\b|\b4[- ]?bit\b|\bawq\b|\bgptq\b"),
    ("bf16", r"\bbf-?16\b|\bfp-?16\b|\bfull precision\b|\bunquanti[sz]ed\b|\bhalf precision\b"),
)
_DOMAINS: tuple[tuple[str, str], ...] = (
    (
        "code",
        r"\bcod(?:e|ing)\b|\bprogramm\w+|\bdevelopers?\b|\bdevs?\b|\bsoftware\b|\bides?\b|"
        r"\bfunctions and classes\b|\bvs ?code\b|\bautocomplet\w*",
    ),
    ("legal", r"\blegal\b(?! won't)|\blaw(?:yers?|s)?\b|\battorneys?\b|\bcontracts?\b|\bpatents?\b|\bregulat\w+"),
    ("medical", r"\bmedic\w+|\bhealth\w*|\bclinic\w*|\bpatients?\b|\bdoctors?\b|\bpharma\w*|\bhospital\w*"),
    ("finance", r"\bfinanc\w+|\bbank\w*|\baccount(?:ants?|ing)\b|\binvoices?\b|\binsur\w+|\btrad(?:ers?|ing)\b"),
    ("multilingual", r"\bmulti-?ling\w+|\bmulti-?language\b|\btranslat\w+|\blanguages\b|\bhindi\b|\blocali[sz]\w+"),
    ("education", r"\bstudents?\b|\bteach\w+|\beducat\w+|\bschools?\b|\buniversit\w+"),
    ("science", r"\bscien\w+|\bacadem\w+|\bresearch papers?\b"),
    ("customer_support", r"\bcustomer (?:service|support|care)\b|\bhelp-?\s?desk\b|\bsupport tickets?\b"),
)
_DENIED = re.compile(
    r"\b(?:no|not|without|avoid|never|don't (?:use|want)|can't|cannot|won't|isn't|rather than|instead of)\s+"
    r"(?:\w+\s+){0,2}$"
)
_DENIED_AFTER = re.compile(r"^(?: \w+)? (?:is|are) (?:out\b|not\b|no (?:option|go)\b|unacceptable|excluded|forbidden)")
_STREAMING = re.compile(
    r"\b(?P<no>no |without |not |non-)?stream(?:ed|ing)\b(?P<off> (?:is |turned |switched )?(?:off|disabled|not\b))?"
)
_PUE = re.compile(r"\bpue\b\D{0,8}(\d(?:\.\d{1,3})?)")
_MONTHS = re.compile(
    r"\b(?:amorti[sz]\w*|depreciat\w*|written off|over)\b[a-z ]{0,20}?(\d{1,3}) ?(months?|"
    r"years?)\b"
)


def terms(text: Text) -> dict[str, Any]:
    """Fields of the intent, as far as this turn tells them."""
    found: dict[str, Any] = {}
    for name, table in (
        ("experience_class", _PATTERNS[0]),
        ("quality_threshold", _PATTERNS[1]),
        ("burstiness_pattern", _PATTERNS[2]),
        ("market", _PATTERNS[3]),
        ("deployment_model", _PATTERNS[4]),
    ):
        value = next((value for value, pattern in table if _said(pattern, text.lower)), None)
        if value is not None:
            found[name] = value
    if "market" not in found and _SPOT.search(text.lower) is not None:
        found["market"] = Market.ON_DEMAND  # spot was named, and denied
    precisions = tuple(name for name, pattern in _PRECISION_PATTERNS if _said(pattern, text.lower))
    if precisions:
        found["quantizations"] = precisions
    domains = tuple(name for name, pattern in _DOMAIN_PATTERNS if pattern.search(text.lower))
    if domains:
        found["domains"] = domains
    if (streaming := _STREAMING.search(text.lower)) is not None:
        found["streaming"] = streaming["no"] is None and streaming["off"] is None
    if (pue := _PUE.search(text.lower)) is not None:
        found["pue"] = float(pue[1])
    if (months := _MONTHS.search(text.lower)) is not None:
        found["amortization_months"] = int(months[1]) * (12 if months[2].startswith("year") else 1)
    return found


def _said(pattern: re.Pattern[str], lower: str) -> bool:
    for count, match in enumerate(pattern.finditer(lower)):
        before, after = lower[max(0, match.start() - 40) : match.start()], lower[match.end() : match.end() + 40]
        if not _DENIED.search(before) and not _DENIED_AFTER.match(after):
            return True
        if count > 20:
            break
    return False


_PATTERNS = tuple(
    tuple((value, re.compile(words)) for value, words in table)
    for table in (_CLASSES, _TIERS, _BURSTS, _MARKETS, _OWNERSHIP)
)
_SPOT = _PATTERNS[3][0][1]
_PRECISION_PATTERNS = tuple((value, re.compile(words)) for value, words in _PRECISIONS)
_DOMAIN_PATTERNS = tuple((value, re.compile(words)) for value, words in _DOMAINS)
