"""`crosslogic notices`: what was raised, and where the operators, or an org, want to be told."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_done, print_json, print_rows

app = typer.Typer(add_completion=False, no_args_is_help=True, help="See what was raised, and choose who is told.")

_CHANNELS = "/admin/notification-channels"

ChannelArgument = Annotated[str, typer.Argument(metavar="CHANNEL", help="Its id, `chan_…`.")]
KindsOption = Annotated[list[str] | None, typer.Option("--notice", help="Only notices of this kind; repeatable.")]


@app.command("list")
@with_management
def list_notices(
    api: Management,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as `budget`.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="The newest so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """What was raised, newest first, of all organisations."""
    print_rows(
        api.get("/admin/notices", kind=kind, limit=limit)["data"],
        {
            "at": "at",
            "org": "org_id",
            "kind": "kind",
            "severity": "severity",
            "title": "title",
        },
        nothing="nothing was raised",
        as_json=as_json,
    )


@app.command()
@with_management
def anomalies(
    api: Management,
    kind: Annotated[str | None, typer.Option(help="Only of this type, such as `latency_spike`.")] = None,
    since: Annotated[str | None, typer.Option(help="Only what went on after this instant.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="The newest so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """What was unusual in usage and service, newest first; looked for with `anomaly_detection.enabled`."""
    print_rows(
        api.get("/admin/anomalies", kind=kind, since=since, limit=limit)["data"],
        {
            "since": "started_at",
            "until": lambda row: row["ended_at"] or "goes on",
            "type": "kind",
            "model": "model",
            "region": "region",
            "severity": "severity",
            "what": "description",
        },
        nothing="nothing was unusual",
        as_json=as_json,
    )


@app.command()
@with_management
def channels(api: Management, as_json: JsonOption = False) -> None:
    """Where operators are told. Organisations choose for themselves, at `/api/v1/notification-channels`."""
    print_rows(
        api.rows(_CHANNELS),
        {
            "id": "id",
            "name": "name",
            "kind": "kind",
            "target": "target",
            "notices": lambda row: row["notices"] or "all",
            "status": "status",
        },
        nothing="nobody is told; add a channel",
        as_json=as_json,
    )


@app.command()
@with_management
def add(
    api: Management,
    name: Annotated[str, typer.Argument(help="Name for people.")],
    kind: Annotated[str, typer.Option(help="email, slack, pagerduty or webhook.")],
    target: Annotated[str, typer.Option(help="E-mail address, https:// URL, or integration key of PagerDuty.")],
    notice: KindsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell operators there, of every organisation's notices. The secret of a webhook is shown now and never again."""
    made = api.post(_CHANNELS, {"name": name, "kind": kind, "target": target, "notices": notice or []})
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made['id']}: {kind} to {target}")
    if made["secret"]:
        typer.echo(f"secret: {made['secret']}")


@app.command("test")
@with_management
def try_out(api: Management, channel: ChannelArgument, as_json: JsonOption = False) -> None:
    """Send a notice to one channel; `deliveries` tells what became of it."""
    made = api.post(f"{_CHANNELS}/{channel}/test")
    print_done(made, f"{made['id']} is on its way", as_json=as_json)


@app.command()
@with_management
def deliveries(api: Management, channel: ChannelArgument, as_json: JsonOption = False) -> None:
    """What became of the latest notices for a channel."""
    print_rows(
        api.get(f"{_CHANNELS}/{channel}/deliveries")["data"],
        {
            "notice": "notice_id",
            "title": "title",
            "status": "status",
            "attempts": "attempts",
            "sent at": "sent_at",
            "problem": "problem",
        },
        nothing="nothing was sent there",
        as_json=as_json,
    )


@app.command()
@with_management
def remove(api: Management, channel: ChannelArgument) -> None:
    """Send nothing there any more."""
    api.delete(f"{_CHANNELS}/{channel}")
    typer.echo(f"{channel} is removed")
