"""Any text at all is understood as something, the same each time, and later what is said still corrects it."""

from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslogic.compass.intent.deterministic import extract
from crosslogic.compass.intent.model import DeploymentIntent
from crosslogic.compass.intent.numbers import numbers
from crosslogic.compass.intent.ports import Role, Turn
from crosslogic.compass.intent.text import read
from crosslogic.compass.specification.edit import edit, fields_of
from crosslogic.compass.specification.generate import specify
from crosslogic.compass.specification.model import Specification
from crosslogic.compass.specification.validate import validate
from crosslogic.kernel.errors import InvalidRequest

VOCABULARY = """
chatbot for not no 1000 1.5k users -5 a b,c. half of them H100 A100 80GB L40S qwen 32B
llama between and 10 to 20 ms first
token $4k per month 99.9% rps 10^12 1e400 thousands several hundred dozen peak budget cheap latency is more important
than cost spot own buy in us-east-1 aws ( ) — ; ! 5 lakh context 32k tokens per day
"""
WORDS = st.sampled_from(VOCABULARY.split())
TEXTS = st.one_of(st.text(max_size=300), st.lists(WORDS, max_size=60).map(" ".join))
TURNS = st.lists(
    st.tuples(st.sampled_from(list(Role)), TEXTS, st.sampled_from([None, "user_count", "use_case", "nonsense"])).map(
        lambda each: Turn(*each)
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(TURNS)
def test_every_conversation_has_an_intent_a_specification_and_findings(turns: list[Turn]) -> None:
    intent = extract(turns)
    assert intent == extract(turns)
    specification = specify(intent)
    assert msgspec.json.decode(msgspec.json.encode(specification), type=Specification) == specification
    assert all(finding.sentence for finding in validate(specification))


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_turn_repeated_changes_nothing(said: str) -> None:
    once = extract([Turn(Role.USER, said)])
    twice = extract([Turn(Role.USER, said), Turn(Role.USER, said)])
    changing = {
        "use_case_description",
        "use_case",
        "user_count",
        "user_count_min",
        "user_count_max",
    }  # "double the users"
    same = [name for name in DeploymentIntent.__struct_fields__ if name not in changing]
    assert {name: getattr(twice, name) for name in same} == {name: getattr(once, name) for name in same}


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_numbers_stand_in_the_text_in_order_and_apart(text: str) -> None:
    found = numbers(text.lower())
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert all(0 <= each.low <= each.value <= each.high for each in found)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_clauses_cover_the_text_in_order(content: str) -> None:
    text = read(content)
    assert len(text.raw) == len(text.lower)
    assert all(one.end <= other.start for one, other in pairwise(text.clauses))
    assert all(text.lower[clause.start : clause.end] == clause.text for clause in text.clauses)


FIELDS = sorted(fields_of(specify(DeploymentIntent())))
VALUES = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.text(max_size=5), max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), VALUES)
def test_any_edit_gives_a_specification_or_a_reason(field: str, value: object) -> None:
    specification = specify(DeploymentIntent())
    try:
        edited = edit(specification, {field: value})
    except InvalidRequest:
        return
    assert msgspec.json.decode(msgspec.json.encode(edited), type=Specification) == edited
    assert all(finding.sentence for finding in validate(edited))
