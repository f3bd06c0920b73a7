"""What the claims of a JSON web token say, once its signature is known to be right. Pure (RFC 7519 §4.1).

Invariant: whatever is absent, of a wrong type or unknown where it matters makes the token nobody's; nothing is
converted or guessed.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from crosslogic.tenancy.model import Role

_MAX_TEXT = 512
_STRONGEST_FIRST = (Role.ADMIN, Role.DEVELOPER, Role.READ_ONLY)


class ClaimRules(msgspec.Struct, frozen=True):
    """Which claims are asked for. A name with dots is also looked for inside nested objects."""

    issuer: str | None = None
    audiences: tuple[str, ...] = ()  # one of them must be among the token's
    org_claim: str = "org"  # id or name
    env_claim: str = "env"  # id or name; without it the org's only environment, or `default_env`
    role_claim: str = "role"  # one role, or a list: the strongest that is ours counts
    email_claim: str = "email"  # a user of the org with this address lends id, role and limits
    default_env: str | None = None
    default_role: Role = Role.DEVELOPER  # where neither the token nor the user says
    leeway_s: float = 30.0  # clocks differ


class Identity(msgspec.Struct, frozen=True):
    issuer: str
    subject: str
    org: str
    env: str | None
    role: Role | None
    email: str | None
    expires_at_s: float  # seconds since 1970, leeway included


class Invalid(msgspec.Struct, frozen=True):
    """Why a token is nobody's, for logs and tests; callers are only told that it is not valid."""

    reason: str


def identity_of(claims: Mapping[str, Any], rules: ClaimRules, now_s: float) -> Identity | Invalid:
    expires_at_s = _instant(claims.get("exp"))
    if expires_at_s is None:
        return Invalid("exp is absent or no number")
    if expires_at_s + rules.leeway_s <= now_s:
        return Invalid("expired")
    for name in ("nbf", "iat"):
        if name in claims:
            instant = _instant(claims[name])
            if instant is None or instant > now_s + rules.leeway_s:
                return Invalid(f"{name} is in the future or no number")
    issuer = _text(claims.get("iss")) or ""
    if rules.issuer is not None and issuer != rules.issuer:
        return Invalid("another issuer")
    if rules.audiences and not _audiences(claims.get("aud")) & set(rules.audiences):
        return Invalid("another audience")
    return _tenant(claims, rules, issuer, expires_at_s + rules.leeway_s)


def _tenant(claims: Mapping[str, Any], rules: ClaimRules, issuer: str, expires_at_s: float) -> Identity | Invalid:
    subject, org = _text(claims.get("sub")), _text(_claim(claims, rules.org_claim))
    if subject is None:
        return Invalid("sub is absent or no text")
    if org is None:
        return Invalid("no org")
    env, email = _claim(claims, rules.env_claim), _claim(claims, rules.email_claim)
    if env is not None and _text(env) is None:
        return Invalid("the environment is no text")
    said = _claim(claims, rules.role_claim)
    role = _role(said)
    if isinstance(said, str) and role is None:
        return Invalid("unknown role")
    if said is not None and not isinstance(said, str | list):
        return Invalid("the role is no text")
    return Identity(issuer, subject, org, _text(env) or rules.default_env, role, _text(email), expires_at_s)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _role(said: Any) -> Role | None:
    names = (
        {said}
        if isinstance(said, str)
        else {name for name in said if isinstance(name, str)}
        if isinstance(said, list)
        else set()
    )
    return next((role for role in _STRONGEST_FIRST if role.value in names), None)


def _audiences(said: Any) -> set[str]:
    if isinstance(said, str):
        return {said}
    return {name for name in said if isinstance(name, str)} if isinstance(said, list) else set()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable() else None


def _instant(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None
