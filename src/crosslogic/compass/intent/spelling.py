"""Words that the rules know, as people mistype them. Pure.

Invariant: only a word that is one letter away from exactly one of `_MEANT` is changed, and none that is a word itself;
what has figures or signs in it, as names of models do, is left alone.
"""

import re
from functools import cache

_MEANT_WORDS = """
    accuracy articles assistant autocomplete availability budget chatbot chatbots cheapest colleagues completion
    concurrent conversational critical customer customers developers document documents electricity employee
    employees engineer engineers generation
    important interactive latency latencies lawyers people preferred priority programmers prompts quality questions
    readers requests researchers retrieval students subscribers summaries summarization summarisation summarize
    summarise translation translations translators
"""
# Words of their own that are one letter away from those, and their other forms.
_REAL_WORDS = """
    article assistants autocompleted autocompletes budgeted budgets chatbox completions concurrently criticals
    developer employed employer employers generations lawyer peoples prefer prefers programmer programmes
    prompt qualify question reader readies request researcher researches student subscriber summarised summarises
    summarized summarizes summary translator
"""
_MEANT, _REAL = frozenset(_MEANT_WORDS.split()), frozenset(_REAL_WORDS.split())
_SHORT = {"usres": "users", "useres": "users", "usrs": "users", "uesrs": "users", "usr": "user"}
_APOSTROPHES = re.compile(r"\b(does|do|is|are|ca|wo|would|should)nt\b", re.I)
_WORD = re.compile(r"(?<![\w./@-])[A-Za-z]{3,20}(?![\w/@-])")
_LEAST = 6  # letters of what is held against the list


def corrected(text: str) -> str:
    """The text with such words put right."""
    return _WORD.sub(lambda match: _meant(match[0]), _APOSTROPHES.sub(r"\1n't", text))


def _meant(word: str) -> str:
    lower = word.lower()
    if lower in _SHORT:
        return _SHORT[lower]
    if len(lower) < _LEAST or lower in _REAL or lower in _MEANT:
        return word
    found = _near().get(lower)
    return word if found is None else found


@cache
def _near() -> dict[str, str]:
    """Everything that is one letter away, where that is from one word alone. The first letter is never wrong."""
    found: dict[str, set[str]] = {}
    for word in _MEANT:
        for other in _variants(word):
            if other[0] == word[0]:
                found.setdefault(other, set()).add(word)
    return {other: words.pop() for other, words in found.items() if len(words) == 1}


def _variants(word: str) -> set[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    splits = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    return {
        *(a + b[1:] for a, b in splits if b),
        *(a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1),
        *(a + c + b[1:] for a, b in splits if b for c in letters),
        *(a + c + b for a, b in splits for c in letters),
    }
