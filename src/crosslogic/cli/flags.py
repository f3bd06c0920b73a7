"""Options that many commands share, without what only some of them need."""

from typing import Annotated, Any

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RequestsOption = Annotated[int | None, typer.Option("--requests-per-minute", min=1, help="Ceiling of requests.")]
TokensOption = Annotated[int | None, typer.Option("--tokens-per-minute", min=1, help="Ceiling of tokens.")]
ConcurrencyOption = Annotated[int | None, typer.Option("--concurrency", min=1, help="Requests at the same time.")]
OrgOption = Annotated[str, typer.Option("--org", help="Organisation, by id or name.")]


def given(**values: Any) -> dict[str, Any]:
    """Those that were given: an absent flag does not hide a setting, nor a default of the management API."""
    return {name: value for name, value in values.items() if value is not None}


def limits_of(
    requests_per_minute: int | None, tokens_per_minute: int | None, concurrency: int | None
) -> dict[str, Any] | None:
    """The ceilings that were given, as the management API takes them; None when there are none."""
    return (
        given(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrency=concurrency)
        or None
    )
