"""`crosslogic notices`: what was raised, and where the operators, or an org, want to be told."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_table

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
    rows = api.get("/admin/notices", kind=kind, limit=limit)["data"]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("at", "org", "kind", "severity", "title"),
        ((row["at"], row["org_id"], row["kind"], row["severity"], row["title"]) for row in rows),
        nothing="nothing was raised",
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
    rows = api.get("/admin/anomalies", kind=kind, since=since, limit=limit)["data"]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("since", "until", "type", "model", "region", "severity", "what"),
        (
            (
                row["started_at"],
                row["ended_at"] or "goes on",
                row["kind"],
                row["model"],
                row["region"],
                row["severity"],
                row["description"],
            )
            for row in rows
        ),
        nothing="nothing was unusual",
    )


@app.command()
@with_management
def channels(api: Management, as_json: JsonOption = False) -> None:
    """Where operators are told. Organisations choose for themselves, at `/api/v1/notification-channels`."""
    rows = list(api.rows(_CHANNELS))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "name", "kind", "target", "notices", "status"),
        ((row["id"], row["name"], row["kind"], row["target"], row["notices"] or "all", row["status"]) for row in rows),
        nothing="nobody is told; add a channel",
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
    print_json(made) if as_json else typer.echo(f"{made['id']} is on its way")


@app.command()
@with_management
def deliveries(api: Management, channel: ChannelArgument, as_json: JsonOption = False) -> None:
    """What became of the latest notices for a channel."""
    rows = api.get(f"{_CHANNELS}/{channel}/deliveries")["data"]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("notice", "title", "status", "attempts", "sent at", "problem"),
        (
            (row["notice_id"], row["title"], row["status"], row["attempts"], row["sent_at"], row["problem"])
            for row in rows
        ),
        nothing="nothing was sent there",
    )


@app.command()
@with_management
def remove(api: Management, channel: ChannelArgument) -> None:
    """Send nothing there any more."""
    api.delete(f"{_CHANNELS}/{channel}")
    typer.echo(f"{channel} is removed")
