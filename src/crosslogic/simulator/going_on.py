"""Answers that another node began: the simulated model goes on with its own words, wherever it meets them.

Pure. A chat says where the partial answer stands (`continue_final_message`); in the prompt of a completion it is
looked for, as a real model would take it from there too. Invariant: for a request whose answer is the same on every
node (greedy or seeded), the text that was given and the rest that is made here are the answer in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from crosslogic.simulator import text, tokens
from crosslogic.simulator.answer import Answer, compose
from crosslogic.simulator.requests import Generation, Prompt

if TYPE_CHECKING:
    from random import Random

RngOf = Callable[[str], "Random"]  # of a prompt's text


def answer_to(request: Generation, prompt: Prompt, limit: int, rng_of: RngOf) -> Answer:
    """The answer of at most `limit` tokens, or the rest of one that the prompt begins."""
    for base, given in _beginnings(request, prompt):
        rest = _rest(request, base, given, limit, rng_of)
        if rest is not None:
            return rest
    return compose(request, prompt, limit, rng_of(prompt.text))


def _beginnings(request: Generation, prompt: Prompt) -> Iterator[tuple[Prompt, str]]:
    """Where the prompt may end and the answer begin."""
    if prompt.given:
        yield prompt, prompt.given
    elif request.completes:
        for at in text.own_beginnings(prompt.text):
            base = prompt.text[:at]
            yield Prompt(base, tokens.count(base), base), prompt.text[at:]


def _rest(request: Generation, base: Prompt, given: str, limit: int, rng_of: RngOf) -> Answer | None:
    """What follows `given` in the answer to `base`; None when that answer begins otherwise."""
    known = tokens.count(given)
    longer = msgspec.structs.replace(request, min_tokens=request.min_tokens + known if request.min_tokens else 0)
    whole = compose(longer, base, limit + known, rng_of(base.text))
    if not whole.text.startswith(given):
        return None
    pieces: list[str] = []
    left = len(given)
    for piece in whole.pieces:
        if len(piece) <= left:
            left -= len(piece)
        else:
            pieces.append(piece[left:])
            left = 0
    # The end of the sequence is a token, too, for whoever had all of the text.
    return msgspec.structs.replace(whole, pieces=pieces or [""])
