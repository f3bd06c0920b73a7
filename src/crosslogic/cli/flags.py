"""Options that many commands share, without what only some of them need."""

from pathlib import Path
from typing import Annotated, Any

import typer

from crosslogic.kernel.durations import duration_s
from crosslogic.kernel.errors import InvalidRequest

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RequestsOption = Annotated[int | None, typer.Option("--requests-per-minute", min=1, help="Ceiling of requests.")]
TokensOption = Annotated[int | None, typer.Option("--tokens-per-minute", min=1, help="Ceiling of tokens.")]
ConcurrencyOption = Annotated[int | None, typer.Option("--concurrency", min=1, help="Requests at the same time.")]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME=VALUE", help="Any ceiling, such as spend_per_month_usd=25.00; repeatable."),
]
EnvLimitOption = Annotated[
    list[str] | None,
    typer.Option("--env-limit", metavar="NAME=VALUE", help="Of each environment without its own; repeatable."),
]
KeyLimitOption = Annotated[
    list[str] | None, typer.Option("--key-limit", metavar="NAME=VALUE", help="Of each key without its own; repeatable.")
]
AtCapOption = Annotated[
    str | None, typer.Option("--at-cap", help="When a month's spending cap is met: reject or suspend.")
]
CacheOption = Annotated[
    str | None, typer.Option("--cache", help="Response cache: off, opt_in (requests ask by x-cache), on, or inherit.")
]
CacheTtlOption = Annotated[
    str | None, typer.Option("--cache-ttl", metavar="DURATION", help="How long answers are kept, such as 1h.")
]
CacheSampledOption = Annotated[
    bool | None, typer.Option("--cache-sampled/--no-cache-sampled", help="Also answers at any temperature.")
]
ResidencyOption = Annotated[
    bool | None,
    typer.Option("--residency/--no-residency", help="Whether data may leave the region: with it, it never does."),
]
UrlOption = Annotated[str | None, typer.Option("--url", envvar="CROSSLOGIC_URL", help="Address of the management API.")]
AdminKeyOption = Annotated[
    str | None,
    typer.Option(
        "--admin-key", envvar="CROSSLOGIC_ADMIN_KEY", show_envvar=True, help="Admin key; better in the environment."
    ),
]
DataDirOption = Annotated[
    Path,
    typer.Option(
        "--data-dir", envvar="CROSSLOGIC_DATA_DIR", help="Of a local `crosslogic up`, to read address and key from."
    ),
]
DATA_DIR = Path(".crosslogic")
OrgOption = Annotated[str, typer.Option("--org", help="Organisation, by id or name.")]


def given(**values: Any) -> dict[str, Any]:
    """Those that were given: an absent flag does not hide a setting, nor a default of the management API."""
    return {name: value for name, value in values.items() if value is not None}


def limits_of(
    requests_per_minute: int | None, tokens_per_minute: int | None, concurrency: int | None, more: list[str] | None
) -> dict[str, Any] | None:
    """The ceilings that were given, as the management API takes them; None when there are none."""
    ceilings = given(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrency=concurrency
    )
    return {**ceilings, **(named_limits(more, "--limit") or {})} or None


def named_limits(said: list[str] | None, flag: str) -> dict[str, Any] | None:
    """Ceilings written as `name=value`; which names there are is for the management API to say. `none` is no ceiling.

    Raises InvalidRequest.
    """
    if said is None:
        return None
    ceilings: dict[str, Any] = {}
    for one in said:
        name, found, value = one.partition("=")
        if not found or not name or not value:
            raise InvalidRequest(f"{flag} {one}: write name=value, such as requests_per_day=1000")
        ceilings[name] = {"true": True, "false": False, "none": None}.get(value, value)
    return ceilings


def cache_of(use: str | None, ttl: str | None, sampled: bool | None) -> dict[str, Any] | None:
    """What was chosen of the response cache, as the management API takes it; None when nothing was given."""
    chosen = given(use=None if use == "inherit" else use, ttl_s=seconds_of(ttl, "--cache-ttl"), sampled=sampled)
    return chosen if chosen or use is not None else None


def seconds_of(duration: str | None, flag: str) -> float | None:
    """Raises InvalidRequest, naming the flag."""
    if duration is None:
        return None
    try:
        return duration_s(duration)
    except ValueError:
        raise InvalidRequest(f"{flag} {duration}: write a duration such as 12h or 90d") from None
