"""German, French, and Hindi mixed with English, as far as the rules need: their words become the English ones. Pure.

Invariant: a text is taken for one of these languages only where two of its small words stand in it, or one that no
other has; English is never touched. Longer phrases go before shorter ones.
"""

import re
from functools import cache

import msgspec


class _Language(msgspec.Struct, frozen=True):
    marks: re.Pattern[str]  # small words that it has
    sure: re.Pattern[str]  # those of them that no other has
    words: tuple[tuple[str, str], ...]
    thousands: str | None = None  # what its figures are grouped by


_GERMAN = _Language(
    marks=re.compile(
        r"\b(?:ich|wir|für|und|oder|mit|einen?|brauche[n]?|der|die|das|ist|im|pro|von|unsere?|ohne|keine?)\b"
    ),
    sure=re.compile(r"\b(?:für|ich|brauchen?|unsere?)\b"),
    words=(
        (r"so (?:günstig|billig) wie möglich|möglichst (?:günstig|billig)", "as cheap as possible"),
        (
            r"(?:geringe|niedrige|kurze)r? latenz(?: ist)?(?: \w+)?? (?:entscheidend|wichtig|kritisch)",
            "low latency is critical",
        ),
        (r"(?:geringe|niedrige|kurze)r? latenz", "low latency"),
        (r"qualität (?:ist|hat|geht) (?:am wichtigsten|vor|vorrang|entscheidend)\w*", "quality is critical"),
        (r"(?:code|quelltext)-?\s?vervollständigung", "code completion"),
        (r"zusammenfassung(?:en)?", "summaries"),
        (r"zusammenfassen|fasst? .{0,20}? zusammen", "summarize"),
        (r"kurze[rn]?", "short"),
        (r"lange[rn]? (?:dokumente|berichte)", "long documents"),
        (r"artikeln?", "articles"),
        (r"übersetzung(?:en)?", "translation"),
        (r"übersetzer(?:innen)?", "translators"),
        (r"dokumenten?suche", "document search"),
        (r"quellenangaben?", "citations"),
        (r"verträgen?", "contracts"),
        (r"handbücher[n]?", "manuals"),
        (r"mitarbeiter(?:innen|n)?|beschäftigten?", "employees"),
        (r"(?:be)?nutzer(?:innen|n)?|anwender(?:innen|n)?", "users"),
        (r"kund(?:en|innen)", "customers"),
        (r"entwickler(?:innen|n)?", "developers"),
        (r"ingenieur(?:e[n]?|innen)", "engineers"),
        (r"leser(?:innen|n)?", "readers"),
        (r"leute[n]?|personen|menschen", "people"),
        (r"jurist(?:en|innen)|anwälten?", "lawyers"),
        (r"erste[sn]? (?:token|wort)", "first token"),
        (r"anfragen", "requests"),
        (r"pro sekunde", "per second"),
        (r"sekunden?", "seconds"),
        (r"(?:im|pro) monat|monatlich", "per month"),
        (r"pro tag|täglich", "per day"),
        (r"gleichzeitig", "at the same time"),
        (r"höchstens|maximal", "at most"),
        (r"unter", "under"),
        (r"ohne|keinen?", "without"),
        (r"für", "for"),
    ),
    thousands=r"\.",
)
_FRENCH = _Language(
    marks=re.compile(r"\b(?:nous|pour|des|les|une?|avec|sans|par|est|de|du|il|faut|le|la|en)\b"),
    sure=re.compile(r"\b(?:nous|avec|utilisateurs|pour les)\b"),
    words=(
        (r"le moins cher possible|au moindre coût", "as cheap as possible"),
        (r"la qualité (?:avant tout|d'abord|est (?:essentielle|primordiale|prioritaire))", "quality above all"),
        (r"(?:faible|basse) latence(?: (?:est )?(?:indispensable|essentielle|primordiale|critique))?", "low latency"),
        (r"assistant conversationnel", "chatbot"),
        (r"complétion de code", "code completion"),
        (r"résumés?", "summaries"),
        (r"articles de presse", "news articles"),
        (r"traductions?", "translation"),
        (r"recherche documentaire", "document search"),
        (r"contrats?", "contracts"),
        (r"utilisateurs|utilisatrices", "users"),
        (r"clients?|clientes", "customers"),
        (r"développeu(?:rs|ses)", "developers"),
        (r"employés|salariés|collaborateurs", "employees"),
        (r"ingénieurs", "engineers"),
        (r"juristes|avocats", "lawyers"),
        (r"lecteurs|lectrices", "readers"),
        (r"personnes", "people"),
        (r"premier (?:jeton|token|mot)", "first token"),
        (r"en moins de", "under"),
        (r"requêtes", "requests"),
        (r"par seconde", "per second"),
        (r"secondes?", "seconds"),
        (r"par mois", "per month"),
        (r"par jour", "per day"),
        (r"en même temps", "at the same time"),
        (r"au (?:plus|maximum)", "at most"),
        (r"sans|pas d[e']", "without"),
        (r"pour", "for"),
    ),
    thousands=r"[  ]",
)
_HINDI = _Language(
    marks=re.compile(
        r"\b(?:ke|ki|ka|hai|hain|liye|chahiye|humein|hamein|hamare|hona|nahi|nahin|aur|sabse|mein|karo|do)\b"
    ),
    sure=re.compile(r"\b(?:chahiye|liye|humein|nahin?|hamare)\b"),
    words=(
        (r"(?P<name>[\w-]{1,40}) (?:nahin?|mat) (?:chahiye|lena|use karo)", r"no \g<name>"),
        (r"jaldi (?:reply|jawab|answer)(?: aana)?(?: chahiye)?|tez (?:hona|jawab)(?: chahiye)?", "low latency"),
        (r"(?:sabse )?sasta(?: hona)?(?: chahiye)?", "cheap"),
        (
            r"(?P<aim>accuracy|quality|speed|latency|cost) (?:sabse )?(?:zaroori|zaruri|important)(?: hai)?",
            r"\g<aim> is critical",
        ),
        (r"haza+r", "thousand"),
        (r"log(?:on)?\b", "people"),
        (r"karmachari(?:yon)?", "employees"),
        (r"grahak(?:on)?", "customers"),
        (r"ke liye", "for them"),
    ),
)
_LANGUAGES = (_GERMAN, _FRENCH, _HINDI)
_LEAST_MARKS = 2


def in_english(text: str) -> str:
    """The text with the words that the rules look for in English, where it is in one of these languages."""
    best = max(_LANGUAGES, key=lambda language: _marks(language, text))
    if _marks(best, text) < _LEAST_MARKS:
        return text
    if best.thousands is not None:
        text = re.sub(rf"(?<=\d){best.thousands}(?=\d{{3}}\b)", ",", text)
    for pattern, english in _patterns(best):
        text = pattern.sub(english, text)
    return text


def _marks(language: _Language, text: str) -> int:
    lower = text.lower()
    return len(set(language.marks.findall(lower))) + len(set(language.sure.findall(lower)))


@cache
def _patterns(language: _Language) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(rf"\b(?:{words})(?!\w)", re.I), english) for words, english in language.words)
