"""JSON web tokens: which are somebody's, which are nobody's, and what a thousand strange ones may cost."""

import asyncio
import base64
import hmac
import json
import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.tenancy import keys
from crosslogic.tenancy.apikey_users import ApiKeyUsers, EitherUsers
from crosslogic.tenancy.claims import ClaimRules, Identity, Invalid, identity_of
from crosslogic.tenancy.directory import Directory, KeyEntry
from crosslogic.tenancy.jwks import HttpFetch, IssuerKeys, read_keys
from crosslogic.tenancy.jwt import UNKNOWN_KEY, JwtVerifier
from crosslogic.tenancy.jwt_users import MAX_REMEMBERED, JwtUsers
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Environment, Org, Principal, Role, Status

THEN = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = THEN.timestamp()
SECRET = b"thirty-two bytes are the minimum"
RSA, EC = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
RULES = ClaimRules(issuer="https://id.example", audiences=("crosslogic",))
CLAIMS = {
    "iss": "https://id.example",
    "aud": "crosslogic",
    "sub": "ann",
    "exp": NOW_S + 3600,
    "org": "acme",
    "env": "prod",
    "role": "admin",
}


def signed(claims: dict[str, Any] | None = None, algorithm: str = "HS256", key: Any = None, **header: Any) -> bytes:
    keys = {"HS256": OctKey.import_key(SECRET), "RS256": RSA, "ES256": EC}
    named = {"RS256": {"kid": "rsa-1"}, "ES256": {"kid": "ec-1"}}.get(algorithm, {})
    key = key or keys[algorithm]
    body = CLAIMS | (claims or {})
    body = {name: value for name, value in body.items() if value is not ...}
    return jwt.encode({"alg": algorithm, **named, **header}, body, key, algorithms=[algorithm]).encode()


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


RSA_JWK = {**RSA.as_dict(private=False), "kid": "rsa-1", "use": "sig", "alg": "RS256"}
EC_JWK = {**EC.as_dict(private=False), "kid": "ec-1"}


class Issuer:
    """Serves a key set, and counts how often it is asked."""

    def __init__(self, document: bytes = b"") -> None:
        self.document = document or key_set(RSA_JWK, EC_JWK)
        self.asked = 0
        self.down = False

    async def __call__(self) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise OSError("no route to host")
        return self.document


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(THEN)


@pytest.fixture
def verifier(clock: ManualClock) -> JwtVerifier:
    return JwtVerifier(RULES, clock, secret=SECRET)


async def with_keys(clock: ManualClock, issuer: Issuer, **options: Any) -> JwtVerifier:
    keys = IssuerKeys(issuer, clock)
    await keys.refresh()
    return JwtVerifier(RULES, clock, issuer_keys=keys, **options)


# signatures


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_token_of_the_issuer_is_somebody_s(clock: ManualClock, algorithm: str) -> None:
    found = (await with_keys(clock, Issuer())).verify(signed(algorithm=algorithm))
    assert isinstance(found, Identity)
    assert (found.subject, found.org, found.env, found.role) == ("ann", "acme", "prod", Role.ADMIN)


def test_a_token_signed_with_the_secret_is_somebody_s(verifier: JwtVerifier) -> None:
    assert isinstance(verifier.verify(signed()), Identity)


def b64(value: Any) -> bytes:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def forged(header: Any, claims: Any = CLAIMS, signature: bytes = b"") -> bytes:
    return b".".join((b64(header), b64(claims), signature))


def tampered(token: bytes) -> bytes:
    head, _, signature = token.split(b".")
    return b".".join((head, b64(CLAIMS | {"role": "admin", "org": "other"}), signature))


NEGATIVES: dict[str, Callable[[], bytes]] = {
    "alg none": lambda: forged({"alg": "none"}),
    "alg None": lambda: forged({"alg": "None"}),
    "alg nOnE": lambda: forged({"alg": "nOnE"}),
    "alg none with a signature": lambda: forged({"alg": "none"}, signature=b64(b"x" * 32)),
    "no alg": lambda: forged({"typ": "JWT"}),
    "alg is a list": lambda: forged({"alg": ["HS256"]}),
    "alg is null": lambda: forged({"alg": None}),
    "HS384": lambda: jwt.encode({"alg": "HS384"}, CLAIMS, OctKey.import_key(SECRET * 2), algorithms=["HS384"]).encode(),
    "RS256 where only the secret counts": lambda: signed(algorithm="RS256"),
    "another secret": lambda: signed(key=OctKey.import_key(SECRET[::-1])),
    "no signature": lambda: signed().rsplit(b".", 1)[0] + b".",
    "half a signature": lambda: signed()[:-10],
    "changed claims": lambda: tampered(signed()),
    "crit": lambda: forged({"alg": "HS256", "crit": ["b64"], "b64": False}),
    "kid is no text": lambda: forged({"alg": "HS256", "kid": 7}),
    "two parts": lambda: b"a.b",
    "four parts": lambda: b"a.b.c.d",
    "five parts": lambda: b"a.b.c.d.e",
    "nothing": lambda: b"",
    "dots": lambda: b"..",
    "no base64": lambda: b"\xff\xff.\xff.\xff",
    "no JSON": lambda: forged(b"{"),
    "no object": lambda: forged([1]),
    "deep": lambda: forged(b"[" * 700),
    "header too long": lambda: forged({"alg": "HS256", "x": "y" * 2_000}),
    "too long": lambda: signed({"x": "y" * 9_000}),
    "claims are a list": lambda: forged({"alg": "HS256"}, [1], b64(b"x" * 32)),
    # claims
    "expired": lambda: signed({"exp": NOW_S - 31}),
    "no exp": lambda: signed({"exp": ...}),
    "exp is text": lambda: signed({"exp": str(NOW_S + 60)}),
    "exp is true": lambda: signed({"exp": True}),
    "exp is endless": lambda: signed({"exp": 10**400}),
    "not yet": lambda: signed({"nbf": NOW_S + 60}),
    "from the future": lambda: signed({"iat": NOW_S + 60}),
    "another issuer": lambda: signed({"iss": "https://evil.example"}),
    "issuer with a slash": lambda: signed({"iss": "https://id.example/"}),
    "no issuer": lambda: signed({"iss": ...}),
    "another audience": lambda: signed({"aud": "other"}),
    "audiences without ours": lambda: signed({"aud": ["other", "crosslogic2"]}),
    "no audience": lambda: signed({"aud": ...}),
    "no subject": lambda: signed({"sub": ...}),
    "subject is a number": lambda: signed({"sub": 7}),
    "no org": lambda: signed({"org": ...}),
    "org is a list": lambda: signed({"org": ["acme"]}),
    "env is a list": lambda: signed({"env": ["prod"]}),
    "unknown role": lambda: signed({"role": "king"}),
    "role is a number": lambda: signed({"role": 1}),
}


@pytest.mark.parametrize("name", NEGATIVES)
def test_a_token_that_is_not_in_order_is_nobody_s(verifier: JwtVerifier, name: str) -> None:
    assert isinstance(verifier.verify(NEGATIVES[name]()), Invalid)


async def test_a_public_key_is_no_secret_to_sign_with(clock: ManualClock) -> None:
    """The old confusion: HS256 over the published key of RS256."""
    verifier = await with_keys(clock, Issuer(), secret=SECRET)
    for published in (RSA.as_pem(private=False), json.dumps(RSA_JWK).encode(), RSA_JWK["n"].encode()):
        for header in ({}, {"kid": "rsa-1"}):
            signing_input = b64({"alg": "HS256", **header}) + b"." + b64(CLAIMS)
            token = signing_input + b"." + b64(hmac.digest(published, signing_input, "sha256"))
            assert isinstance(verifier.verify(token), Invalid)
    with pytest.raises(ConfigurationError):  # nor can it be configured as one
        JwtVerifier(RULES, clock, secret=RSA.as_pem(private=False))


async def test_a_key_that_the_token_brings_along_does_not_count(clock: ManualClock) -> None:
    verifier, own = await with_keys(clock, Issuer()), RSAKey.generate_key(2048)
    for header in (
        {"jwk": own.as_dict(private=False), "kid": "rsa-1"},
        {"jku": "https://evil.example/keys", "kid": "rsa-1"},
    ):
        token = signed(algorithm="RS256", key=own, **header)
        assert isinstance(verifier.verify(token), Invalid)


async def test_a_key_counts_for_its_own_algorithm_only(clock: ManualClock) -> None:
    verifier = await with_keys(clock, Issuer())
    assert verifier.verify(signed(algorithm="RS256", kid="ec-1")) is UNKNOWN_KEY
    assert verifier.verify(signed(algorithm="ES256", kid="rsa-1")) is UNKNOWN_KEY


async def test_algorithms_can_be_narrowed(clock: ManualClock) -> None:
    verifier = await with_keys(clock, Issuer(), algorithms=["ES256"])
    assert isinstance(verifier.verify(signed(algorithm="ES256")), Identity)
    assert isinstance(verifier.verify(signed(algorithm="RS256")), Invalid)
    with pytest.raises(ConfigurationError):
        await with_keys(clock, Issuer(), algorithms=["HS256"])


def test_a_short_secret_or_none_is_refused(clock: ManualClock) -> None:
    for secret in (None, b"short"):
        with pytest.raises(ConfigurationError):
            JwtVerifier(RULES, clock, secret=secret)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "1"},
        {"kty": "RSA", "kid": "short", "e": "AQAB", "n": base64.urlsafe_b64encode(b"\xff" * 128).decode().rstrip("=")},
        {**RSA_JWK, "use": "enc"},
        {**RSA_JWK, "alg": "RS512"},
        {**EC_JWK, "crv": "P-384"},
        {**EC_JWK, "x": "AA"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": 7, "e": []},
        "text",
        None,
    ],
)
def test_keys_that_are_of_no_use_are_passed_over(key: Any) -> None:
    assert read_keys(key_set(key)) == {}


@pytest.mark.parametrize(
    "document",
    [b"", b"{}", b"[]", b"7", b'{"keys": 1}', b"{" * 100_000, b" " * 300_000, key_set(*[EC_JWK] * 65), b"\xff\xfe"],
)
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any wording
        read_keys(document)


@pytest.mark.parametrize("url", ["http://id.example/keys", "file:///etc/passwd", "ftp://id.example", "", "id.example"])
def test_keys_are_not_fetched_in_the_clear(url: str) -> None:
    with pytest.raises(ConfigurationError):
        HttpFetch(url)


# the issuer


async def test_a_flood_of_unknown_keys_asks_the_issuer_once(clock: ManualClock) -> None:
    issuer = Issuer()
    verifier = await with_keys(clock, issuer)
    clock.advance(60)
    tokens = [forged({"alg": "RS256", "kid": f"k{n}"}, signature=b64(b"x" * 256)) for n in range(500)]
    found = await asyncio.gather(*(verifier.verify_waiting(token) for token in tokens))
    for token in tokens:
        assert await verifier.verify_waiting(token) is UNKNOWN_KEY
    assert set(found) == {UNKNOWN_KEY}
    assert issuer.asked == 2
    clock.advance(10)
    await verifier.verify_waiting(tokens[0])
    assert issuer.asked == 3


async def test_a_new_key_is_found_by_the_first_who_needs_it(clock: ManualClock) -> None:
    issuer = Issuer(key_set(EC_JWK))
    verifier = await with_keys(clock, issuer)
    clock.advance(60)
    issuer.document = key_set(EC_JWK, RSA_JWK)
    token = signed(algorithm="RS256")
    found = await asyncio.gather(*(verifier.verify_waiting(token) for _ in range(20)))
    assert all(isinstance(each, Identity) for each in found)
    assert issuer.asked == 2


async def test_without_its_issuer_known_keys_serve_on_for_a_day(clock: ManualClock) -> None:
    issuer = Issuer()
    verifier = await with_keys(clock, issuer)
    issuer.down = True
    clock.advance(3600 * 23)
    assert verifier.issuer_keys is not None
    await verifier.issuer_keys.refresh()
    token = signed({"exp": NOW_S + 10**6}, "RS256")
    assert isinstance(verifier.verify(token), Identity)
    clock.advance(3600 * 2)
    assert verifier.verify(token) is UNKNOWN_KEY


async def test_a_caller_that_leaves_does_not_end_the_fetch_of_the_others(clock: ManualClock) -> None:
    issuer = Issuer()
    keys = IssuerKeys(issuer, clock)
    one, other = asyncio.create_task(keys.refresh()), asyncio.create_task(keys.refresh())
    await asyncio.sleep(0)
    one.cancel()
    await other
    assert keys.find("RS256", "rsa-1") is not None
    assert issuer.asked == 1


async def test_a_token_without_a_key_id_needs_an_only_key(clock: ManualClock) -> None:
    verifier = await with_keys(clock, Issuer())
    assert isinstance(verifier.verify(_without_kid()), Identity)
    two = await with_keys(clock, Issuer(key_set(RSA_JWK, {**RSA_JWK, "kid": "rsa-2"})))
    assert two.verify(_without_kid()) is UNKNOWN_KEY


def _without_kid() -> bytes:
    return jwt.encode({"alg": "RS256"}, CLAIMS, RSA, algorithms=["RS256"]).encode()


# claims


def test_claims_may_have_other_names_and_be_nested() -> None:
    rules = ClaimRules(org_claim="https://x.example/org", env_claim="tenant.env", role_claim="realm.roles")
    claims = {
        "sub": "ann",
        "exp": NOW_S + 1,
        "https://x.example/org": "acme",
        "tenant": {"env": "dev"},
        "realm": {"roles": ["offline", "read-only", "developer"]},
    }
    found = identity_of(claims, rules, NOW_S)
    assert isinstance(found, Identity)
    assert (found.org, found.env, found.role) == ("acme", "dev", Role.DEVELOPER)


def test_what_a_token_does_not_say_the_rules_say() -> None:
    rules = ClaimRules(default_env="prod")
    found = identity_of({"sub": "ann", "exp": NOW_S + 1, "org": "acme"}, rules, NOW_S)
    assert isinstance(found, Identity)
    assert (found.env, found.role, found.expires_at_s) == ("prod", None, NOW_S + 31)


# users


ORG = Org(OrgId("org_1"), "acme", Status.ACTIVE, THEN)
ENV = Environment(EnvId("env_1"), OrgId("org_1"), "prod", THEN)
KEY, STRANGE_KEY = (keys.assemble(keys.KeyKind.LIVE, bytes([n]) * 20).encode() for n in (1, 2))


@pytest.fixture
def directory() -> Directory:
    directory = Directory(key_hasher())
    entry = KeyEntry(KeyId("key_1"), key_hasher()(KEY), ENV.id, Role.DEVELOPER, Status.ACTIVE)
    directory.replace([ORG], [ENV], [entry])
    return directory


@pytest.fixture
def users(verifier: JwtVerifier, directory: Directory) -> JwtUsers:
    return JwtUsers(verifier, directory)


async def test_a_token_s_subject_is_a_principal_like_any_other(users: JwtUsers) -> None:
    principal = users.resolve(signed())
    assert principal is not None
    assert (principal.org_id, principal.env_id, principal.role) == ("org_1", "env_1", Role.ADMIN)
    assert principal.key_id.startswith("jwt_")
    assert principal.expires_at_s == CLAIMS["exp"] + 30
    assert await users.authenticate(signed()) is principal
    assert users.resolve(signed({"iat": NOW_S})).key_id == principal.key_id  # type: ignore[union-attr]


async def test_nobody_s_token_is_nobody_and_not_remembered(users: JwtUsers) -> None:
    for make in NEGATIVES.values():
        assert users.resolve(make()) is None
        assert await users.authenticate(make()) is None
    assert users.resolve(signed({"org": "other"})) is None
    assert users.resolve(signed({"env": "other"})) is None
    assert len(users) == 0


def test_a_suspended_org_is_refused_at_once_and_what_did_not_change_stays(
    users: JwtUsers, directory: Directory
) -> None:
    token = signed()
    first = users.resolve(token)
    directory.put_environment(ENV)
    assert users.resolve(token) is first
    directory.put_org(msgspec.structs.replace(ORG, status=Status.SUSPENDED))
    suspended = users.resolve(token)
    assert suspended is not None
    assert suspended.refusal == "tenant_suspended"
    directory.replace([], [], [])
    assert users.resolve(token) is None
    assert len(users) == 0


async def test_a_token_falls_with_the_key_that_signed_it(clock: ManualClock, directory: Directory) -> None:
    issuer = Issuer()
    users = JwtUsers(await with_keys(clock, issuer), directory)
    token = signed(algorithm="ES256")
    assert users.resolve(token) is not None
    issuer.document = key_set(RSA_JWK)
    clock.advance(300)
    assert users._verifier.issuer_keys is not None
    await users._verifier.issuer_keys.refresh()
    assert users.resolve(token) is None


async def test_the_first_token_under_a_new_key_waits_for_it(clock: ManualClock, directory: Directory) -> None:
    keys = IssuerKeys(Issuer(), clock)  # nothing fetched yet
    users = JwtUsers(JwtVerifier(RULES, clock, issuer_keys=keys), directory)
    token = signed(algorithm="ES256")
    assert users.resolve(token) is None
    assert await users.authenticate(token) is not None
    assert users.resolve(token) is not None


def test_what_is_remembered_is_bounded(users: JwtUsers, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REMEMBERED <= 100_000
    monkeypatch.setattr("crosslogic.tenancy.jwt_users.MAX_REMEMBERED", 3)
    tokens = [signed({"sub": f"s{n}"}) for n in range(5)]
    assert all(users.resolve(token) for token in tokens)
    assert len(users) == 3
    assert users.resolve(tokens[0]) is not None  # forgotten, and verified again


def test_a_known_token_costs_less_than_fifty_microseconds(users: JwtUsers) -> None:
    token = signed()
    users.resolve(token)
    seconds = min(timeit.repeat(lambda: users.resolve(token), timer=time.process_time, number=2_000, repeat=7))
    assert seconds / 2_000 < 50e-6


async def test_keys_and_tokens_are_told_apart(users: JwtUsers, directory: Directory) -> None:
    either = EitherUsers(ApiKeyUsers(directory), users)
    found: list[Principal | None] = [
        either.resolve(KEY),
        either.resolve(signed()),
        await either.authenticate(KEY),
        await either.authenticate(signed()),
        either.resolve(STRANGE_KEY),
        await either.authenticate(b"neither"),
    ]
    assert [None if each is None else each.key_id[:4] for each in found] == ["key_", "jwt_", "key_", "jwt_", None, None]


def test_what_is_no_key_is_refused_before_any_look_up(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    hash_key = key_hasher()
    monkeypatch.setattr(directory, "_hash_key", lambda token: hashed.append(token) or hash_key(token))
    users = ApiKeyUsers(directory)
    for malformed in (b"", b"x", b"clsk_live_x", KEY[:-1], KEY + b"0", KEY.replace(b"live", b"test"), b"\xff" * 43):
        assert users.resolve(malformed) is None
    assert hashed == []
    assert users.resolve(STRANGE_KEY) is None
    assert users.resolve(KEY) is not None
    assert hashed == [STRANGE_KEY, KEY]
