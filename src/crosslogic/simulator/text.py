"""What the simulated model says: plausible prose, code, summaries or extracted data, by what the prompt asks.

Pure: the same generator state and prompt give the same answer. `paragraphs` never ends, so that any number of
tokens can be drawn from it; `natural_length` says where a real model would have stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

_TASKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("extraction", re.compile(r"\b(extract|json|fields?|entities|parse|csv)\b", re.I)),
    ("summary", re.compile(r"\b(summar\w*|tl;?dr|condense|key points|abstract)\b", re.I)),
    ("code", re.compile(r"\b(code|function|python|javascript|sql|class|bug|implement|refactor|script)\b", re.I)),
    ("translation", re.compile(r"\b(translat\w+|french|german|spanish|italian)\b", re.I)),
    ("question", re.compile(r"(\?\s*$)|^\s*(what|why|how|when|who|where|which)\b", re.I)),
)
_MEDIAN_TOKENS = {"extraction": 60, "summary": 90, "code": 180, "translation": 70, "question": 110, "chat": 80}

_ASKING_CHARACTERS = 200
_WORD = re.compile(r"[A-Za-z][a-z]{3,}")
_COMMON = re.compile(
    "about|above|after|also|because|been|before|being|between|code|could|does|each|extract|from|function|give|have|"
    "hello|help|here|into|just|like|make|more|most|need|other|over|please|python|should|some|such|summarize|tell|text|"
    "than|thank|that|their|them|then|there|these|they|this|those|through|translate|using|very|want|what|when|where|"
    "which|while|will|with|would|write|your|used|uses|many|much|only|such|sure|good|best|show|list|briefly|following",
    re.I,
)

_OPENINGS = {
    "question": (
        "The short answer is that {0} depends mostly on {1}.",
        "There are two parts to this: what {0} is, and how it relates to {1}.",
        "In practice, {0} comes down to a few points.",
    ),
    "summary": (
        "In brief, the text is about {0} and what it means for {1}.",
        "The main point is that {0} changes how {1} is handled.",
    ),
    "chat": (
        "Happy to help with {0}.",
        "Thanks for the details. Let us look at {0} first.",
        "Sure. Here is how I would approach {0}.",
    ),
    "translation": ("Voici la traduction demandée.", "La version traduite se lit ainsi."),
}
_SENTENCES = (
    "Start with {0}, since everything else builds on it.",
    "A common mistake is to treat {0} and {1} as the same thing.",
    "If {0} matters more than {1}, choose the simpler option and measure again.",
    "It usually helps to write down the expected result before changing {0}.",
    "Most teams see the largest effect from {1}, not from {0}.",
    "Keep an eye on {0} as the load grows.",
    "You can check this by comparing {0} before and after.",
    "When in doubt, keep {1} small and add detail later.",
    "That said, {0} has a cost, and it is worth knowing what it buys.",
    "The remaining work is to agree on {1} and to decide who owns it.",
)
_FRENCH = (
    "Le point de départ est simple et chacun peut le vérifier.",
    "Il faut ensuite comparer les résultats avant de conclure.",
    "La méthode reste la même quand le volume augmente.",
    "On gagne du temps en gardant les étapes courtes.",
)
_SUMMARY_POINTS = (
    "- {0} is described first, with its limits.",
    "- The author links {0} to {1}.",
    "- Costs and risks of {1} are named, but not quantified.",
    "- The next step is a small trial of {0}.",
)
_CODE = (
    "Here is a small implementation:\n\n```python\ndef process_{2}(items: list[str]) -> dict[str, int]:\n"
    '    """Count how often each {0} occurs."""\n    counts: dict[str, int] = {{}}\n    for item in items:\n'
    "        key = item.strip().lower()\n        if not key:\n            continue\n"
    "        counts[key] = counts.get(key, 0) + 1\n    return counts\n```\n\n",
    "A test for it:\n\n```python\ndef test_process_{2}() -> None:\n"
    '    result = process_{2}(["a", "A ", ""])\n    assert result == {{"a": 2}}\n```\n\n',
    "The loop visits every {0} once, so the running time is linear. It ignores empty input on purpose. "
    "If the order of {1} matters, sort the keys before returning them.\n\n",
)


_FIXED = sorted(
    {template.partition("{")[0] for template in (*(line for lines in _OPENINGS.values() for line in lines), _CODE[0])}
    | {'{"name": "'}
)


def own_beginnings(prompt: str) -> list[int]:
    """Where in a prompt one of our own answers may begin; the last words of it may be the first of an answer."""
    found = set()
    for fixed in filter(None, _FIXED):
        at = prompt.find(fixed)
        while at >= 0:
            found.add(at)
            at = prompt.find(fixed, at + 1)
        found |= {len(prompt) - size for size in range(1, len(fixed)) if prompt.endswith(fixed[:size])}
    return sorted(found - {0})


def task_of(prompt: str) -> str:
    """Which kind of answer the prompt asks for."""
    # What is asked stands at the beginning or at the end; in between is what it is asked about.
    asked = (
        prompt if len(prompt) <= 2 * _ASKING_CHARACTERS else prompt[:_ASKING_CHARACTERS] + prompt[-_ASKING_CHARACTERS:]
    )
    for task, pattern in _TASKS:
        if pattern.search(asked):
            return task
    return "chat"


def natural_length(task: str, rng: Random) -> int:
    """After how many tokens the model would stop by itself; lognormal about the task's median."""
    return max(4, round(_MEDIAN_TOKENS[task] * rng.lognormvariate(0.0, 0.4)))


def paragraphs(task: str, prompt: str, rng: Random) -> Iterator[str]:
    """Endless paragraphs of an answer. Each ends in a line end, so that they split into tokens one by one."""
    topics = _topics(prompt)

    def fill(template: str) -> str:
        first, second = rng.sample(topics, 2)
        return template.format(first, second, re.sub(r"\W", "", first).lower() or "items")

    if task == "code":
        name = topics[0]
        while True:
            for block in _CODE:
                yield block.format(name, topics[-1], name.lower())
    if task == "extraction":
        while True:
            amount, tenth = rng.randrange(1, 1000), rng.randrange(10)
            yield f'{{"name": "{rng.choice(topics)}", "value": {amount}, "confidence": 0.9{tenth}}}\n'
    opening = _OPENINGS.get(task, _OPENINGS["chat"])
    body = {"translation": _FRENCH, "summary": _SUMMARY_POINTS}.get(task, _SENTENCES)
    yield fill(rng.choice(opening)) + "\n\n"
    while True:
        if task == "summary":
            yield fill(rng.choice(body)) + "\n"
            continue
        sentences = rng.sample(body, k=min(len(body), rng.randrange(2, 5)))
        yield " ".join(fill(s) for s in sentences) + "\n\n"


def _topics(prompt: str) -> list[str]:
    """A few words of the prompt that are worth repeating."""
    found: dict[str, None] = {}
    for word in _WORD.findall(prompt[-_ASKING_CHARACTERS:]):
        if not _COMMON.fullmatch(word):
            found[word] = None
    topics = list(found)[-8:]
    return topics if len(topics) > 1 else [*topics, "the request", "the result"]
