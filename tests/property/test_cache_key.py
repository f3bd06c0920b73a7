"""The cache key: white space, order and escapes never change it, anything that means something always does."""

import json
import random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crosslogic.cache.key import IGNORED, cache_key, fingerprint, key_named, meaning_of, read_fields, slot_digest
from crosslogic.cache.model import CacheKey, Form, Question
from tests.cache_samples import CHAT, ORG, OTHER_ORG, question

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["messages", "temperature", "seed", "tools", "max_tokens", "stop", *sorted(IGNORED)]
)
bodies = st.dictionaries(names, values, max_size=6)


def key(asked: Question) -> CacheKey:
    fields = read_fields(asked.body)
    assert fields is not None
    return cache_key(asked, fields, meaning_of(fields))


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON value with the members of all objects in another order."""
    if isinstance(value, dict):
        members = [(name, shuffled(member, rng)) for name, member in value.items()]
        rng.shuffle(members)
        return dict(members)
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def meaning(body: dict[str, Any]) -> str:
    """What must decide the key, by another way: Python's own JSON, which tells 0 from 0.0 and True from 1."""
    return json.dumps({name: value for name, value in body.items() if name not in IGNORED}, sort_keys=True)


@given(bodies, st.randoms(use_true_random=False), st.booleans(), st.sampled_from([None, 1, 7]))
def test_spelling_never_changes_the_key(
    body: dict[str, Any], rng: random.Random, ascii_only: bool, indent: int | None
) -> None:
    other = json.dumps(shuffled(body, rng), ensure_ascii=ascii_only, indent=indent).encode()
    plain = question(json.dumps(body).encode())
    assert key(plain) == key(question(other))
    assert fingerprint(plain) == fingerprint(question(other))


@given(bodies, bodies)
def test_two_bodies_have_one_key_exactly_when_they_mean_the_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    same = key(question(one)) == key(question(two))
    assert same == (meaning(one) == meaning(two))


@given(bodies, names, values)
def test_changing_one_meaningful_member_always_changes_the_key(body: dict[str, Any], name: str, value: Any) -> None:
    assume(name not in IGNORED)
    changed = {**body, name: value}
    assume(meaning(changed) != meaning(body))
    assert key(question(body)) != key(question(changed))
    assert fingerprint(question(body)) != fingerprint(question(changed))


@given(bodies, st.sampled_from(sorted(IGNORED)), values)
def test_what_does_not_reach_the_answer_does_not_reach_the_key(body: dict[str, Any], name: str, value: Any) -> None:
    assert key(question(body)) == key(question({**body, name: value}))


short = st.text(max_size=6)
asked = st.tuples(short, short, short, st.sampled_from(list(Form)))


@given(asked, asked)
def test_org_endpoint_model_and_form_all_count_and_never_run_into_each_other(
    one: tuple[str, str, str, Form], two: tuple[str, str, str, Form]
) -> None:
    keys = [
        key(question(CHAT, org=o, endpoint=e, model=m, form=f))  # type: ignore[arg-type]
        for o, e, m, f in (one, two)
    ]
    assert (keys[0].digest == keys[1].digest) == (one == two)


@given(bodies, st.text(max_size=20).map(str.encode))
def test_two_orgs_never_share(body: dict[str, Any], name: bytes) -> None:
    mine, theirs = question(body, org=ORG), question(body, org=OTHER_ORG)
    assert key(mine).digest != key(theirs).digest
    assert key(mine).org_id == ORG
    assert slot_digest(mine, name) != slot_digest(theirs, name)


def test_an_idempotency_key_is_one_endpoints_own() -> None:
    assert slot_digest(question(), b"k") != slot_digest(question(endpoint="completions"), b"k")
    assert slot_digest(question(), b"k") != slot_digest(question(), b"l")


def test_what_shapes_the_packets_of_a_stream_counts_only_for_streams() -> None:
    every = {**CHAT, "stream_options": {"continuous_usage_stats": True}}
    usage = {**CHAT, "stream_options": {"include_usage": True}}
    assert key(question(every)) == key(question(CHAT))
    assert key(question(every, form=Form.STREAM)) != key(question(CHAT, form=Form.STREAM))
    assert key(question(usage, form=Form.STREAM)) == key(question(CHAT, form=Form.STREAM))
    assert len({key(question(CHAT, form=form)) for form in Form}) == 3


def test_a_repeat_with_another_form_is_another_request() -> None:
    assert fingerprint(question(CHAT)) != fingerprint(question({**CHAT, "stream": True}))
    assert fingerprint(question(CHAT, model="m")) != fingerprint(question(CHAT, model="n"))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"nonsense", b'{"a":NaN}', b'{"a":1e999}', b'{"a":"\\ud800"}', b'{"a":' + b"[" * 5000]
)
def test_what_cannot_be_compared_has_no_key_but_still_a_fingerprint(body: bytes) -> None:
    assert read_fields(body) is None
    assert len(fingerprint(question(body))) == 32


def test_a_key_can_be_named_again_by_its_own_org_alone() -> None:
    mine = key(question())
    assert key_named(ORG, mine.shown) == mine
    assert key_named(OTHER_ORG, mine.shown) != mine
    for wrong in ("", "xyz", mine.shown[:-2], mine.shown + "00", "ä" * 64):
        assert key_named(ORG, wrong) is None
