"""The form of API keys: fixed width, checkable offline, told apart by kind, and hashed the same everywhere."""

import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

import pytest

from crosslogic.tenancy import keys
from crosslogic.tenancy.keys import KeyKind


@pytest.mark.parametrize("kind", KeyKind)
def test_a_generated_key_is_well_formed_and_of_its_kind(kind: KeyKind) -> None:
    token = keys.generate(kind)
    assert re.fullmatch(rf"clsk_{kind.value}_[0-9A-Za-z]{{33}}", token)
    assert keys.looks_valid(token)
    assert keys.looks_valid(token.encode())
    assert keys.kind_of(token) is kind


def test_the_format_does_not_change() -> None:
    """Keys that were handed out must stay valid, so the encoding of known bytes is written down here."""
    assert keys.assemble(KeyKind.LIVE, bytes(20)).startswith("clsk_live_" + "0" * 27)
    assert keys.assemble(KeyKind.LIVE, b"\xff" * 20) == LARGEST
    assert keys.assemble(KeyKind.TEST, bytes(range(20))) == COUNTING


def test_generated_keys_differ_from_the_first_random_digits_on() -> None:
    tokens = [keys.generate(KeyKind.LIVE) for _ in range(1000)]
    assert len(set(tokens)) == 1000
    # The first digit carries little (2**160 is not a power of 62), but the six of the shown prefix must differ.
    assert len({keys.shown_prefix(token) for token in tokens}) > 990


@pytest.mark.parametrize("length", [0, 19, 21])
def test_other_than_160_random_bits_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="20 random bytes"):
        keys.assemble(KeyKind.LIVE, bytes(length))


@pytest.mark.parametrize(
    "text",
    ["", "clsk_live_", "sk-abc", "clsk_live_" + "0" * 33, "clsk_live_" + "é" * 33, "\ud800", "clsk_live_" * 100],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    assert not keys.looks_valid(text)
    assert keys.kind_of(text) is None


def test_space_around_a_key_and_a_change_of_its_kind_are_refused() -> None:
    token = keys.generate(KeyKind.LIVE)
    for wrong in (f" {token}", f"{token}\n", f"{token} ", token.replace("live", "test"), token.upper()):
        assert not keys.looks_valid(wrong)


def test_the_shown_prefix_gives_away_little() -> None:
    token = keys.generate(KeyKind.TEST)
    assert token.startswith(keys.shown_prefix(token))
    assert len(keys.shown_prefix(token)) == len("clsk_test_") + 6


def test_a_key_is_stored_as_sha256() -> None:
    assert keys.key_hasher()(b"token") == hashlib.sha256(b"token").digest()


@pytest.mark.parametrize("pepper", [b"p", b"x" * 64, b"x" * 65, b"x" * 200])
def test_with_a_pepper_it_is_stored_as_hmac_sha256(pepper: bytes) -> None:
    hash_key = keys.key_hasher(pepper)
    for token in (b"", b"token", b"t" * 500):
        assert hash_key(token) == hmac.digest(pepper, token, "sha256")


LARGEST = "clsk_live_aWgEPTl1tmebfsQzFP4bxwgy80V1TwA16"
COUNTING = "clsk_test_0029sS3yqsuDyR1vGFhTuuRAq1b14zDtJ"


def test_what_the_documentation_gives_to_secret_scanners_finds_what_we_find() -> None:
    page = (Path(__file__).parents[2] / "docs" / "keys.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    scanner: dict[str, Any] = {}
    exec(program, scanner)
    made = [keys.generate(kind) for kind in KeyKind for _ in range(20)]
    mistyped = [key[:-1] + ("0" if key[-1] != "0" else "1") for key in made]
    longer = [key + "x" for key in made]
    text = "\n".join(f"export KEY={key};" for key in (*made, *mistyped, *longer))
    assert scanner["keys_in"](text) == list(keys.found_in(text)) == made
    assert f"`{keys.PATTERN}`" in page
