"""For all keys: the checksum finds every slip of one character, and hashing never mixes two keys up."""

from hypothesis import assume, given
from hypothesis import strategies as st

from crosslogic.tenancy import keys

kinds = st.sampled_from(keys.KeyKind)
random_bytes = st.binary(min_size=20, max_size=20)
characters = st.characters(codec="utf-8") | st.sampled_from("0123456789abcdefXYZ_-")


@given(kinds, random_bytes)
def test_every_key_is_valid(kind: keys.KeyKind, random: bytes) -> None:
    token = keys.assemble(kind, random)
    assert keys.looks_valid(token)
    assert keys.kind_of(token) is kind
    assert len(token) == len(f"clsk_{kind.value}_") + 33


@given(kinds, random_bytes, st.data())
def test_a_key_with_one_character_changed_is_refused(kind: keys.KeyKind, random: bytes, data: st.DataObject) -> None:
    token = keys.assemble(kind, random)
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(characters)
    assume(character != token[position])
    assert not keys.looks_valid(token[:position] + character + token[position + 1 :])


@given(kinds, random_bytes, st.data())
def test_a_key_with_a_character_lost_or_doubled_is_refused(
    kind: keys.KeyKind, random: bytes, data: st.DataObject
) -> None:
    token = keys.assemble(kind, random)
    position = data.draw(st.integers(0, len(token) - 1))
    assert not keys.looks_valid(token[:position] + token[position + 1 :])
    assert not keys.looks_valid(token[:position] + token[position] + token[position:])


@given(kinds, random_bytes, random_bytes)
def test_different_random_bytes_make_different_keys(kind: keys.KeyKind, one: bytes, other: bytes) -> None:
    assert (keys.assemble(kind, one) == keys.assemble(kind, other)) is (one == other)


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    assert keys.looks_valid(text) is (keys.kind_of(text) is not None)


@given(st.lists(st.tuples(kinds, random_bytes), max_size=4), st.data())
def test_leaked_keys_are_found_in_any_text(leaked: list[tuple[keys.KeyKind, bytes]], data: st.DataObject) -> None:
    """And nothing else is taken for one: what stands around them has their form at most, not their checksum."""
    tokens = [keys.assemble(kind, random) for kind, random in leaked]
    around = st.sampled_from(["", " ", '"key": "', "\n", "https://x/?k=", "clsk_live_", "clsk_test_" + "0" * 33 + " "])
    behind = st.sampled_from([" ", '",', "\n", "&", "."])
    text = "".join(data.draw(around) + token + data.draw(behind) for token in tokens)
    assert list(keys.found_in(text)) == tokens
