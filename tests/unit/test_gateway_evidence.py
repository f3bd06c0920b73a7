"""What is billed and what counts against limits, of answers whose callers leave."""

import json
from typing import cast

import pytest

from crosslogic.gateway import evidence
from crosslogic.gateway.endpoints import BY_PATH
from crosslogic.gateway.request import Call, ModelBounds, read_call
from crosslogic.gateway.visit import Attempt
from crosslogic.metering.model import Evidence, Outcome, Usage
from crosslogic.scheduling.model import Candidate


def call(path: bytes = b"/v1/chat/completions", **more: object) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello there"}], "input": "hello"} | more
    return read_call(BY_PATH[path], json.dumps(body).encode(), {"m": ModelBounds("m")}, default_output_tokens=64)


@pytest.mark.parametrize(("elapsed_s", "pace_s", "tokens"), [(1.0, 0.05, 20), (9.0, 0.05, 64), (0.01, 0.05, 0)])
def test_who_leaves_a_whole_answer_has_used_what_the_pace_says_and_never_more_than_was_asked(
    elapsed_s: float, pace_s: float, tokens: int
) -> None:
    assert evidence.presumed(call(), elapsed_s, pace_s).completion_tokens == tokens


def test_nothing_is_presumed_without_a_pace_or_where_nothing_is_generated() -> None:
    assert evidence.presumed(call(), 1.0, None) == evidence.NOTHING
    assert evidence.presumed(call(b"/v1/embeddings"), 1.0, 0.05) == evidence.NOTHING


def test_what_is_presumed_counts_only_where_nothing_is_proven() -> None:
    attempt = Attempt(call(), cast(Candidate, None), None, Outcome.CLIENT_CLOSED, presumed=Usage(5, 7))
    assert (attempt.usage, attempt.worked) == (evidence.NOTHING, Usage(5, 7))
    attempt.usage, attempt.evidence = Usage(5, 3), Evidence.COUNTED
    assert attempt.worked == Usage(5, 3)
