"""The salt that keeps prefix caches of orgs apart: what a node reads is ours, whatever the caller wrote."""

import json
import string

import pytest

from crosslogic.cache.salt import Salts, cache_salt
from crosslogic.fleet.backends.known import BACKENDS
from crosslogic.fleet.model import BackendKind
from crosslogic.kernel.ids import OrgId

SECRET = b"a secret of thirty-two bytes ....."
ONE, TWO = OrgId("org_one"), OrgId("org_two")


def salt_in(body: bytes) -> str:
    return str(json.loads(body)["cache_salt"])


def test_a_salt_is_one_orgs_own_and_cannot_be_made_without_the_secret() -> None:
    assert cache_salt(SECRET, ONE) == cache_salt(SECRET, ONE)
    assert len({cache_salt(SECRET, ONE), cache_salt(SECRET, TWO), cache_salt(b"other", ONE)}) == 3


def test_a_salt_is_what_vllm_takes() -> None:
    for org in range(200):
        salt = cache_salt(SECRET, OrgId(f"org_{org}")).decode()
        assert len(salt) == 43  # 256 bits, as vLLM advises; it takes at most 128 characters
        assert set(salt) <= set(string.ascii_letters + string.digits + "-_")  # and none of @ / \ and NUL


@pytest.mark.parametrize("body", [b'{"a":1}', b' {"a" : {"b":"}"}} \r\n\t', b'{"a":"\xc3\xa9"}\n'])
def test_every_other_member_keeps_its_bytes(body: bytes) -> None:
    salted = Salts(SECRET).salted(body, ONE)
    assert salted.startswith(body[: body.rindex(b"}")])
    assert json.loads(salted) == {**json.loads(body), "cache_salt": cache_salt(SECRET, ONE).decode()}


@pytest.mark.parametrize("spelling", ['"cache_salt"', r'"cache\u005fsalt"', r'"\u0063ache_salt"'])
def test_a_caller_can_never_choose_the_salt_that_a_node_sees(spelling: str) -> None:
    salts = Salts(SECRET)
    stolen = cache_salt(SECRET, TWO).decode()
    body = f'{{{spelling}:"{stolen}","a":1}}'.encode()
    assert salt_in(salts.salted(body, ONE)) not in ("", stolen, salt_in(salts.salted(b'{"a":1}', TWO)))


def test_a_callers_own_salt_divides_only_its_own_orgs_cache() -> None:
    salts = Salts(SECRET)
    seen = {
        salt_in(salts.salted(body, org))
        for org in (ONE, TWO)
        for body in (b'{"a":1}', b'{"a":1,"cache_salt":"x"}', b'{"a":1,"cache_salt":"y"}')
    }
    assert len(seen) == 6
    again = salts.salted(b'{"cache_salt":"x","b":2}', ONE)
    assert salt_in(again) == salt_in(salts.salted(b'{"a":1,"cache_salt":"x"}', ONE))


@pytest.mark.parametrize("own", [b"null", b'""', b"7", b"[1]", rb'"\ud800"'])
def test_an_own_salt_that_is_none_counts_as_none(own: bytes) -> None:
    salts = Salts(SECRET)
    assert salt_in(salts.salted(b'{"a":1,"cache_salt":%b}' % own, ONE)) == salt_in(salts.salted(b'{"a":1}', ONE))


def test_no_org_can_be_mistaken_for_another_with_a_salt_of_its_own() -> None:
    assert cache_salt(SECRET, OrgId("org_a"), "b") != cache_salt(SECRET, OrgId("org_"), "ab")
    assert cache_salt(SECRET, OrgId("org_a"), "") != cache_salt(SECRET, OrgId("org_a"))


def test_the_memory_of_salts_is_bounded_and_the_secret_stays_inside() -> None:
    salts = Salts(SECRET, most_orgs=3)
    first = salts.salted(b'{"a":1}', ONE)
    for number in range(10):
        salts.salted(b'{"a":1}', OrgId(f"org_{number}"))
    assert len(salts._endings) <= 3
    assert salts.salted(b'{"a":1}', ONE) == first
    assert SECRET.decode() not in repr(salts)


def test_only_vllm_is_sent_one() -> None:
    assert {kind for kind, backend in BACKENDS.items() if backend.accepts_cache_salt} == {BackendKind.VLLM}
