"""What names, numbers and lists of tenants may look like. Pure; everything here raises InvalidRequest.

Invariant: a name that is stored can stand in a URL (`/{org}/{env}/{model}/v1/…`) and is never mistaken for an id
or for one of our own paths.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from crosslogic.cache.model import CacheChoice
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.limits.model import Dimension, Limits
from crosslogic.tenancy.model import Plan, Scoping
from crosslogic.tenancy.networks import canonical

PAGE_LIMIT = 500
MAX_MODELS = 1_000
MAX_LISTED = 100  # endpoints, regions or networks of a key; regions of an org
MAX_NAME = 200
MAX_EMAIL = 254
MAX_WEIGHT = 1000
MAX_CEILING = 10**15  # far above any real rate, far below what the counters can hold
MAX_SPEND_PUSD = 9 * 10**18  # 9 million USD: up to there the counters are exact to the nano-dollar
MAX_GRACE_S = 30 * 86_400.0
MIN_CACHE_TTL_S, MAX_CACHE_TTL_S = 1.0, 30 * 86_400.0
RESERVED_NAMES = frozenset({"v1", "admin", "api", "console", "docs", "health", "metrics", "ready"})
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ENDPOINT = re.compile(r"[a-z0-9_-]{1,40}(/[a-z0-9_-]{1,40}){0,3}")
_REGION = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_EMAIL = re.compile(r"[^\s@<>\"',;:\\]{1,64}@[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?")
_REFERENCE = re.compile(r"[!-~]{1,200}")


def check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None or name in RESERVED_NAMES:
        raise InvalidRequest(
            "a name is 1 to 63 lower-case letters, digits and inner hyphens, and none of "
            + ", ".join(sorted(RESERVED_NAMES)),
            param="name",
        )


def shown_name(name: str, whose: str = "a key's name") -> str:
    """A name for people."""
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidRequest(f"{whose} is 1 to {MAX_NAME} printable characters", param="name")
    return name


def email(address: str) -> str:
    """In lower case: no mail system of today tells two by the case of their letters."""
    address = address.strip().lower()
    if len(address) > MAX_EMAIL or not address.isprintable() or _EMAIL.fullmatch(address) is None:
        raise InvalidRequest("an e-mail address looks like name@example.com", param="email")
    return address


def checked(limits: Limits, param: str = "limits") -> Limits:
    for dimension in Dimension:
        ceiling = limits.ceiling(dimension)
        most = MAX_SPEND_PUSD if dimension.of_money else MAX_CEILING
        if ceiling is not None and not 0 <= ceiling <= most:
            raise InvalidRequest(f"{dimension.field} is 0 to {most}", param=f"{param}.{dimension.field}")
    if not 0 < limits.burst_share <= 1:
        raise InvalidRequest("burst_share is above 0 and at most 1", param=f"{param}.burst_share")
    return limits


def cache_choice(choice: CacheChoice) -> CacheChoice:
    if choice.ttl_s is not None and not MIN_CACHE_TTL_S <= choice.ttl_s <= MAX_CACHE_TTL_S:
        raise InvalidRequest(
            f"an answer is kept for {MIN_CACHE_TTL_S:.0f} to {MAX_CACHE_TTL_S:.0f} seconds", param="cache.ttl_s"
        )
    return choice


def models(names: Sequence[str], param: str = "allowed_models") -> tuple[str, ...]:
    if len(names) > MAX_MODELS or any(not 0 < len(name) <= MAX_NAME for name in names):
        raise InvalidRequest(f"at most {MAX_MODELS} models, each named in 1 to {MAX_NAME} characters", param=param)
    return tuple(dict.fromkeys(names))


def region(name: str, param: str = "region") -> str:
    if _REGION.fullmatch(name) is None:
        raise InvalidRequest("a region is 1 to 63 lower-case letters, digits and inner hyphens", param=param)
    return name


def regions(names: Sequence[str], param: str = "region_preferences") -> tuple[str, ...]:
    return _listed(names, lambda name: region(name, param), param)


def scoping(asked: Scoping) -> Scoping:
    return Scoping(
        models=models(asked.models, "models"),
        endpoints=_listed(asked.endpoints, _endpoint, "endpoints"),
        regions=regions(asked.regions, "regions"),
        networks=_listed(asked.networks, _network, "networks"),
    )


def plan(asked: Plan) -> Plan:
    check_name(asked.id)
    shown_name(asked.name, "a plan's name")
    for name in ("limits", "env_limits", "key_limits"):
        checked(getattr(asked, name), name)
    for name in ("max_queue_depth", "priority", "price_per_token_pusd", "price_per_month_pusd"):
        _count(getattr(asked, name), name, 10**18)
    if not 1 <= asked.weight <= MAX_WEIGHT:
        raise InvalidRequest(f"weight is 1 to {MAX_WEIGHT}", param="weight")
    _count(asked.included_tokens_per_month, "included_tokens_per_month", MAX_CEILING)
    return asked


def expiry(expires_at: datetime | None, now: datetime) -> datetime | None:
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise InvalidRequest("give the time zone of expires_at, as in 2030-01-01T00:00:00Z", param="expires_at")
    if expires_at <= now:
        raise InvalidRequest("expires_at lies in the past", param="expires_at")
    return expires_at.astimezone(UTC)


def end_of_grace(grace_s: float, now: datetime) -> datetime | None:
    """When a rotated key stops working; None: at once."""
    if not 0 <= grace_s <= MAX_GRACE_S:  # not a number is refused here as well
        raise InvalidRequest(f"grace_s is 0 to {MAX_GRACE_S:.0f} seconds", param="grace_s")
    return now + timedelta(seconds=grace_s) if grace_s else None


def reference(text: str | None) -> str | None:
    """An Idempotency-Key."""
    if text is not None and _REFERENCE.fullmatch(text) is None:
        raise InvalidRequest("an Idempotency-Key is 1 to 200 visible ASCII characters", param="Idempotency-Key")
    return text


def page_limit(limit: int) -> int:
    if not 1 <= limit <= PAGE_LIMIT:
        raise InvalidRequest(f"limit is between 1 and {PAGE_LIMIT}", param="limit")
    return limit


def _listed(values: Sequence[str], read: Callable[[str], str], param: str) -> tuple[str, ...]:
    if len(values) > MAX_LISTED:
        raise InvalidRequest(f"at most {MAX_LISTED} {param}", param=param)
    return tuple(dict.fromkeys(read(value) for value in values))


def _endpoint(name: str) -> str:
    name = name.strip("/").removeprefix("v1/")
    if _ENDPOINT.fullmatch(name) is None:
        raise InvalidRequest("an endpoint is its path without /v1/, such as chat/completions", param="endpoints")
    return name


def _network(block: str) -> str:
    try:
        return canonical(block)
    except ValueError:
        raise InvalidRequest(
            "a network is an address or a block such as 10.0.0.0/8 or 2001:db8::/32", param="networks"
        ) from None


def _count(value: int | None, param: str, most: int) -> None:
    if value is not None and not 0 <= value <= most:
        raise InvalidRequest(f"{param} is 0 to {most}", param=param)
