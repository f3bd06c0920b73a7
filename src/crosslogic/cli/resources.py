"""`crosslogic resources`: GPU memory, CPU cores and concurrency, shared out among organisations."""

from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, OrgOption, given
from crosslogic.cli.output import print_done, print_json, print_rows, print_table
from crosslogic.kernel.durations import duration_s
from crosslogic.kernel.errors import InvalidRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Set aside, allocate and release resources.")

MemoryOption = Annotated[int | None, typer.Option("--gpu-memory-mb", min=0, help="GPU memory in MB.")]
CoresOption = Annotated[float | None, typer.Option("--cpu-cores", min=0, help="CPU cores.")]
AtOnceOption = Annotated[int | None, typer.Option("--concurrency", min=0, help="Requests at the same time.")]


@app.command()
@with_management
def allocate(
    api: Management,
    lasts: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, such as 12h.")],
    org: OrgOption = "default",
    gpu_memory_mb: MemoryOption = None,
    cpu_cores: CoresOption = None,
    concurrency: AtOnceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take resources for an organisation until they are released, or expire."""
    body = given(org=org, gpu_memory_mb=gpu_memory_mb, cpu_cores=cpu_cores, concurrency=concurrency)
    row = api.post("/admin/capacity/allocations", body | {"lasts_s": _seconds(lasts)})
    print_done(row, f"{row['id']}: {_text(row['resources'])} until {row['expires_at']}", as_json=as_json)


@app.command("list")
@with_management
def list_allocations(
    api: Management,
    org: Annotated[str | None, typer.Option("--org", help="Only of this organisation.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what is allocated."""
    print_rows(
        api.rows("/admin/capacity/allocations", org=org),
        {
            "id": "id",
            "org": "org_id",
            "resources": lambda row: _text(row["resources"]),
            "since": "allocated_at",
            "until": "expires_at",
        },
        nothing="nothing is allocated",
        as_json=as_json,
    )


@app.command()
@with_management
def release(
    api: Management,
    allocation: Annotated[str, typer.Argument(metavar="ALLOCATION", help="Its id, `alloc_…`.")],
    as_json: JsonOption = False,
) -> None:
    """Give an allocation back before its time."""
    row = api.delete(f"/admin/capacity/allocations/{allocation}")
    print_done(row, f"{allocation} is released", as_json=as_json)


@app.command()
@with_management
def available(
    api: Management,
    org: OrgOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Show what an organisation has, and what it could have."""
    _tell(api.get(f"/admin/capacity/resources/{org}"), as_json)


@app.command()
@with_management
def reserve(
    api: Management,
    org: OrgOption = "default",
    gpu_memory_mb: MemoryOption = None,
    cpu_cores: CoresOption = None,
    concurrency: AtOnceOption = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="End; for good when absent.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Set resources aside for an organisation, in the place of what was set aside before; nothing ends it."""
    body = given(gpu_memory_mb=gpu_memory_mb, cpu_cores=cpu_cores, concurrency=concurrency, expires_at=until)
    _tell(api.put(f"/admin/capacity/resources/{org}", body), as_json)


def _tell(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    words = ("reserved", "allocated", "available")
    print_table(
        ("", "GPU memory MB", "CPU cores", "concurrency"),
        ((word, *(row[word][name] for name in ("gpu_memory_mb", "cpu_cores", "concurrency"))) for word in words),
        nothing="",
    )


def _text(resources: dict[str, Any]) -> str:
    units = {"gpu_memory_mb": "MB", "cpu_cores": "cores", "concurrency": "at once"}
    return ", ".join(f"{resources[name]:g} {unit}" for name, unit in units.items() if resources[name])


def _seconds(duration: str) -> float:
    try:
        return duration_s(duration)
    except ValueError:
        raise InvalidRequest(f"--for {duration}: write a duration such as 12h or 30d") from None
