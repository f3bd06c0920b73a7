"""Names of models, GPUs, clouds and regions in a turn, wanted or refused. Pure but for the packaged catalogue.

Invariant: every name found is an id of the catalogue, or told as unknown; a name behind "no", "without", "instead of"
and the like, and the names listed with it, is refused.
"""

import re
from functools import cache, lru_cache

import msgspec

from crosslogic.catalog.cards import Cards, ModelCard, cards
from crosslogic.catalog.gpus import load_gpus
from crosslogic.catalog.regions import load_regions
from crosslogic.compass.intent.text import Text

_MOST_NAMES = 500


class Name(msgspec.Struct, frozen=True):
    kind: str  # model, gpu, cloud, region, unknown_model, unknown_gpu
    ids: tuple[str, ...]
    start: int
    end: int
    refused: bool = False


_BRANDS = "llama|qwen|mistral|mixtral|granite|phi|gemma|deepseek|gpt-?oss|kimi|minimax|glm|nemotron|smollm"
_QUALIFIERS = "small|coder|scout|maverick|nemo|instruct|it|r1|v3|oss|super|chat|large|m2\\.5|k2\\.5|k2"
_MODEL = re.compile(
    rf"(?<![a-z0-9.])(?:(?P<org>[a-z0-9][a-z0-9_-]{{0,40}})/)?(?:meta[- ])?(?P<brand>{_BRANDS})"
    rf"(?P<version>[- ]?v?\d{{1,2}}(?:\.\d{{1,2}})?(?![\d.]*b\b)(?!\d|x\d))?"
    rf"(?P<rest>(?:[- ]?(?:{_QUALIFIERS}|\d{{1,3}}x\d{{1,3}}b|\d{{1,4}}(?:\.\d{{1,2}})?b|"
    rf"a\d{{1,3}}b|\d{{2}}e|v0\.\d|\d{{4}}|v?\d\.\d|hf|fp8|w4a16|w8a8|dynamic|quantized|"
    rf"bf16|\.))*)(?![a-z])"
)
_SIZE = re.compile(r"(?P<experts>\d{1,3}x)?(?P<size>\d{1,4}(?:\.\d{1,2})?)b\b")
_CLOSED = re.compile(
    r"\b(?:gpt-?[345](?:\.\d)?o?(?:[- ](?:turbo|mini))?|chatgpt|claude(?:[- ]\w{1,10})?|"
    r"gemini(?:[- ]\w{1,8})?|o[134]-mini|grok)\b"
)
_ORG = re.compile(r"(?<![\w./-])(?P<id>[A-Za-z][\w-]{1,40}/[A-Za-z][\w.-]{2,80}\d[\w.-]{0,40})")
_GPU_LIKE = re.compile(
    r"\b(?:nvidia |amd |geforce |intel )?(?P<name>(?:rtx|gtx)[ -]?\d{3,4}(?: ?ti)?|"
    r"[abhlv]\d{2,4}[a-z]{0,2}|mi\d{2,3}[a-z]?|p100|k80|p40|"
    r"gaudi ?\d?|tpu(?: ?v\d\w?)?|trainium\d?|inferentia\d?|quadro \w{2,8})(?:'?s)?\b"
)
_NAMED_GPU = re.compile(
    r"(?<![\w-])(?P<name>[A-Za-z]{1,12}[ -]?\d{2,5}[A-Za-z]{0,4})\s+(?:gpus?|cards?|"
    r"accelerators?)\b",
    re.I,
)
_GPU_NEAR = re.compile(r"\b(?:gpus?|cards?|accelerators?|nvidia|amd|intel|on|x|with|using)\b|\d\s?x")
_CLOUDS = {
    "aws": r"aws|amazon(?: web services)?|ec2", "gcp": r"gcp|google cloud|gce", "azure": r"azure|microsoft cloud",
    "lambda": r"lambda(?: labs| cloud)", "runpod": r"runpod", "nebius": r"nebius", "oci": r"oci|oracle cloud",
    "coreweave": r"coreweave", "verda": r"verda|datacrunch",
}  # fmt: skip
_CLOUD = re.compile("|".join(rf"\b(?P<{name}>{words})\b" for name, words in _CLOUDS.items()))
_REGION_ID = re.compile(
    r"\b(?:(?:us|eu|ap|ca|sa|me|af|il|cn|mx)-(?:gov-)?(?:north|south|east|west|central|"
    r"northeast|southeast|northwest|southwest)-?\d|"
    r"(?:us|europe|asia|australia|northamerica|southamerica|me|africa)-(?:north|south|"
    r"east|west|central|northeast|southeast|southwest)\d)\b"
)
_REGION_WORDS = re.compile(
    r"\b(?:in|from|within|stay in|hosted in|region|located in|inside|near|"
    r"serve)\s+(?:the\s+)?(?P<place>[a-z-]{2,20})\b"
)

_NO_GPU = {
    "most",
    "least",
    "have",
    "own",
    "with",
    "on",
    "than",
    "to",
    "only",
    "about",
    "of",
    "max",
    "use",
    "the",
    "and",
    "or",
    "over",
}

_REFUSING = re.compile(
    r"\b(?:no|not|without|avoid(?:ing)?|except(?: for)?|but|exclud(?:e|ing|es)|never|"
    r"instead of|rather than|forget|drop|skip|scratch|ditch|strike|ban(?:ned)?|"
    r"other than|don't|do not|doesn't|can't|cannot|won't|isn't|aren't|nothing from|"
    r"neither|nor|get rid of|remove|dislike|hate)\b"
)
_WANTING = re.compile(
    r"\b(?:use|using|prefer|want|like|run(?:ning)?|on|with|only|switch to|deploy|"
    r"would be fine|is fine|instead|rather|choose|go for|take|need)\b"
)
_AFTERWARDS = re.compile(
    r"^['\w ]{0,24}\b(?:is|are|was) (?:not|out|forbidden|banned|too \w+)\b|"
    r"^['\w ]{0,12}\b(?:isn't|aren't|won't|can't) (?!more)"
)
_WANTED_AFTERWARDS = re.compile(
    r"^['\w ]{0,12}\b(?:(?:will|would|can|could) do|(?:is|are|would be) (?:fine|ok(?:ay)?|enough|good)|instead)\b"
)
_SORRY = re.compile(r"\b(?:sorry|i mean|i meant|correction|no,? wait|make that)\b")
_INSTEAD = re.compile(r"\bnot\s+$")
# What is no refusal: "not only", "never outside", "must not leave".
_UNLIMITING = re.compile(
    r"\b(?:not|no) (?:more|less|only|just)\b|"
    r"\b(?:not|no|never|nothing|don't|cannot|can't|mustn't)\b[a-z ]{0,24}\b(?:outside|beyond|leav(?:e|es|ing))\b"
)


def names(text: Text) -> list[Name]:
    """All names, each part of the text once, in their order."""
    found: list[Name] = []
    taken: list[tuple[int, int]] = []
    for finder in (_imported, _models, _gpus, _regions, _clouds, _closed, _unknown):
        for name in finder(text):
            if len(found) < _MOST_NAMES and not any(name.start < end and start < name.end for start, end in taken):
                found.append(name)
                taken.append((name.start, name.end))
    found.sort(key=lambda name: name.start)
    return _judged(text, _taken_back(text, found))


def _taken_back(text: Text, found: list[Name]) -> list[Name]:
    """Without those that the speaker corrects at once: "H100. Sorry, L40S"."""
    kept = []
    for name, after in zip(found, [*found[1:], None] if found else [], strict=True):
        between = "" if after is None or after.kind != name.kind else text.lower[name.end : after.start]
        if len(between) > 40 or not _SORRY.search(between):
            kept.append(name)
    return kept


def _judged(text: Text, found: list[Name]) -> list[Name]:
    """With what is refused marked; a clause that goes on with names goes on with the judgement before it."""
    judged: list[Name] = []
    before_end, before_refused, instead = -1, False, False
    for name in found:
        clause = text.clauses[text.clause_at(name.start)]
        lead = text.lower[max(clause.start, before_end) : name.start]
        tail = text.lower[name.end : min(clause.end, name.end + 60)]
        listed = before_end >= 0 and re.fullmatch(
            r"[\s,/&]*(?:(?:and|or|nor|the|any|a)[\s,]*){0,3}", text.lower[before_end : name.start]
        )
        wanted = _WANTED_AFTERWARDS.match(tail) or (instead and re.match(r"^\W*please\b", tail))  # "not X, Y please"
        inherited = before_refused and not wanted
        refused = inherited if listed else _refuses(lead, tail)
        judged.append(msgspec.structs.replace(name, refused=refused))
        instead = _INSTEAD.search(lead) is not None
        before_end, before_refused = name.end, refused
    return judged


def _refuses(lead: str, tail: str) -> bool:
    lead = _UNLIMITING.sub(" ", lead)
    last_no = max((match.end() for match in _REFUSING.finditer(lead)), default=-1)
    if last_no < 0:
        return _AFTERWARDS.match(tail) is not None
    verb = [match for match in _WANTING.finditer(lead) if match.start() >= last_no]
    # "don't use X", "no need for X": a verb right behind the refusal belongs to it.
    return not any(match.start() - last_no > 12 for match in verb)


def _imported(text: Text) -> list[Name]:
    """What operators added may be of any brand: its id, or what is behind its owner, stands in the text as it is.

    A name that could be a word of the language is none.
    """
    found = []
    for card_id in sorted(cards().imported):
        whole, short = card_id.lower(), card_id.lower().split("/", 1)[-1]
        for name in (whole, short):
            if not ("/" in name or "-" in name or any(char.isdigit() for char in name)):
                continue
            for match in re.finditer(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", text.lower):
                found.append(Name("model", (card_id,), match.start(), match.end()))
    return found


def _models(text: Text) -> list[Name]:
    found = []
    for match in _MODEL.finditer(text.lower):
        cards = _matching(match)
        kind = "model" if cards else "unknown_model"
        ids = tuple(card.id for card in cards) or (text.raw[match.start() : match.end()].strip(),)
        found.append(Name(kind, ids, match.start(), match.end()))
    return found


def _matching(match: re.Match[str]) -> list[ModelCard]:
    whole = re.sub(r"[ ]", "-", match[0]).strip("-. ")
    named = _cards_by_name(cards())
    exact = named.get(whole) or named.get(whole.split("/", 1)[-1])
    if exact is not None:
        return [exact]
    brand = match["brand"].replace("gptoss", "gpt-oss")
    fit = [card for card in cards().by_id.values() if brand in card.id.lower()]
    version = (match["version"] or "").strip("- v")
    rest = match["rest"] or ""
    if version:
        fit = [card for card in fit if re.search(rf"{brand}-?v?{re.escape(version)}(?!\d)", card.id.lower())]
    for qualifier in re.findall(rf"\b(?:{_QUALIFIERS})\b", rest):
        if qualifier not in ("instruct", "it", "chat"):
            fit = [card for card in fit if qualifier in card.id.lower()]
    size = _SIZE.search(rest)
    if size:
        fit = [card for card in fit if _of_size(card, size)]
    dtype = next((d for d, words in (("fp8", "fp8"), ("int4", "w4a16"), ("int8", "w8a8")) if words in rest), None)
    if dtype is not None:
        fit = [card for card in fit if card.dtype == dtype] or fit
    own = [card for card in fit if not card.id.startswith(("RedHatAI/", "nvidia/Llama-3.1-8B"))]
    return own if own and dtype is None else fit


def _of_size(card: ModelCard, size: re.Match[str]) -> bool:
    if size[0] in card.id.lower():
        return True
    billions = float(size["size"])
    return size["experts"] is None and abs(card.parameters / 1e9 - billions) <= 0.08 * billions


@lru_cache(maxsize=4)
def _cards_by_name(known: Cards) -> dict[str, ModelCard]:
    found: dict[str, ModelCard] = {}
    for card in known.by_id.values():
        for name in (*card.aliases, card.id, card.id.split("/", 1)[1]):
            found.setdefault(name.lower().replace(" ", "-"), card)
    # A bare brand means all of it.
    return {name: card for name, card in found.items() if any(c.isdigit() for c in name) or "-" in name}


@cache
def _gpu_pattern() -> tuple[re.Pattern[str], dict[str, tuple[str, ...]]]:
    spoken: dict[str, tuple[str, ...]] = {}
    for gpu in load_gpus().values():
        for alias in (*gpu.aliases, gpu.id.replace("_", "-")):
            spoken.setdefault(re.sub(r"[ _-]", "", alias.lower()), (gpu.id,))
    spoken["a100"] = ("a100_80", "a100_40")
    spoken["v100"] = ("v100_16", "v100_32")
    for size, gpu_id in (
        ("a10080g", "a100_80"),
        ("a10040g", "a100_40"),
        ("h10080g", "h100_sxm"),
        ("h200141g", "h200_sxm"),
    ):
        spoken[size] = (gpu_id,)
    loose = sorted(spoken, key=len, reverse=True)
    alternatives = "|".join("[ _-]?".join(map(re.escape, _parts(name))) for name in loose)
    return re.compile(
        rf"(?:(?<![a-z0-9.])|(?<=\dx))(?:nvidia[ -]|amd[ -]|tesla[ -])?(?P<gpu>{alternatives})(?:'?s)?(?![a-z0-9])"
    ), spoken


def _parts(name: str) -> list[str]:
    """Where people put spaces and dashes: between letters and figures, and between model and memory."""
    return re.findall(r"[a-z]+|\d+", re.sub(r"^([ahv]\d00)(\d)", r"\1 \2", name))


def _gpus(text: Text) -> list[Name]:
    pattern, spoken = _gpu_pattern()
    found = []
    for match in pattern.finditer(text.lower):
        ids = spoken[re.sub(r"[ _-]", "", match["gpu"])]
        found.append(Name("gpu", ids, match.start(), match.end()))
    return found


def _clouds(text: Text) -> list[Name]:
    return [Name("cloud", (str(match.lastgroup),), match.start(), match.end()) for match in _CLOUD.finditer(text.lower)]


@cache
def _places() -> tuple[frozenset[str], dict[str, str]]:
    ids: set[str] = set()
    words: dict[str, str] = {}
    for region in load_regions():
        for word in (region.name.lower(), *region.aliases):
            words[word] = region.id
        for city in region.cities:
            words[city.name.lower()] = city.id
            for names_there in city.clouds.values():
                ids.update(names_there)
    for word, region_id in (
        ("eu", "eu"),
        ("us", "us"),
        ("united states", "us"),
        ("germany", "frankfurt"),
        ("france", "paris"),
        ("ireland", "dublin"),
        ("america", "us"),
    ):
        words.setdefault(word, region_id)
    return frozenset(ids), words


def _regions(text: Text) -> list[Name]:
    ids, words = _places()
    found = [Name("region", (match[0],), match.start(), match.end()) for match in _REGION_ID.finditer(text.lower)]
    for match in re.finditer(r"\b[a-z]{4,20}\d?\b", text.lower):
        if match[0] in ids:
            found.append(Name("region", (match[0],), match.start(), match.end()))
    for match in _REGION_WORDS.finditer(text.lower):
        if match["place"] in words and (match["place"] != "us" or text.raw[match.start("place")] == "U"):
            found.append(Name("region", (words[match["place"]],), match.start("place"), match.end("place")))
    return found


def _closed(text: Text) -> list[Name]:
    return [Name("unknown_model", (match[0],), match.start(), match.end()) for match in _CLOSED.finditer(text.lower)]


def _unknown(text: Text) -> list[Name]:
    found = [Name("unknown_model", (match["id"],), match.start(), match.end()) for match in _ORG.finditer(text.raw)]
    found += [
        Name("unknown_gpu", (match["name"],), match.start("name"), match.end("name"))
        for match in _NAMED_GPU.finditer(text.raw)
        if match["name"].split()[0].lower() not in _NO_GPU
    ]
    for match in _GPU_LIKE.finditer(text.lower):
        around = (
            text.lower[max(0, match.start() - 12) : match.start()] + " " + text.lower[match.end() : match.end() + 16]
        )
        if _GPU_NEAR.search(around):
            raw = text.raw[match.start("name") : match.end("name")]
            found.append(Name("unknown_gpu", (raw,), match.start(), match.end()))
    return found
