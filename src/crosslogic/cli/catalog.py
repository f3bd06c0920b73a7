"""`crosslogic catalog`: what planning builds on. Files are read here; only rows of GPUs are sent to the cloud."""

import csv
import io
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from crosslogic.catalog.gpus import load_gpus
from crosslogic.catalog.price_lists.rows import PriceRow
from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, given
from crosslogic.cli.output import print_json, print_rows, print_table
from crosslogic.cli.price_files import price_rows
from crosslogic.kernel.errors import ConfigurationError, InvalidRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="See and import what planning builds on.")
prices_app = typer.Typer(no_args_is_help=True, help="Prices of GPUs.")
models_app = typer.Typer(no_args_is_help=True, help="Models whose sizes are known.")
app.add_typer(prices_app, name="prices")
app.add_typer(models_app, name="models")

_PRICES, _MODELS = "/admin/catalog/prices", "/admin/catalog/models"
_COLUMNS = (
    *("cloud", "instance_type", "gpu", "gpu_count", "region", "zone"),
    *("on_demand_usd_h", "spot_usd_h", "reserved_usd_h", "source"),
)
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="File as it was downloaded.")]


@app.command()
def gpus(as_json: JsonOption = False) -> None:
    """List the GPUs that are known. Needs no cloud."""
    found = [gpu for _, gpu in sorted(load_gpus().items())]
    if as_json:
        print_json(
            [{"id": gpu.id, "name": gpu.name, "memory_gb": gpu.memory_gb, "tdp_watts": gpu.tdp_watts} for gpu in found]
        )
        return
    print_table(
        ("id", "name", "memory GB", "GB/s", "BF16 TFLOPS", "FP8 TFLOPS", "watts"),
        (
            (g.id, g.name, g.memory_gb, g.bandwidth_gb_per_s, g.bf16_tflops, g.fp8_tflops or None, g.tdp_watts)
            for g in found
        ),
        nothing="",
    )


@models_app.command("list")
@with_management
def list_models(api: Management, as_json: JsonOption = False) -> None:
    """List models with their sizes."""
    print_rows(
        api.rows(_MODELS),
        {
            "id": "id",
            "parameters": "parameters",
            "active": "active_parameters",
            "layers": "layers",
            "KV bytes/token": "kv_bytes_per_token",
            "precision": "dtype",
            "context": "context_window",
            "quality": "quality",
            "licence": "licence",
        },
        nothing="no models",
        as_json=as_json,
    )


@models_app.command("import")
@with_management
def import_model(
    api: Management,
    model: Annotated[str, typer.Argument(help="Its id, such as acme/superlm-9b.")],
    file: FileArgument,
    parameters: Annotated[
        float | None, typer.Option(help="Where they do not follow from the file, such as 397e9.")
    ] = None,
    active_parameters: Annotated[float | None, typer.Option(help="Of them, those that one token passes.")] = None,
    licence: Annotated[str | None, typer.Option(help="The model's licence.")] = None,
    quality: Annotated[str | None, typer.Option(help="basic, standard, high or very_high.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a model from its config.json."""
    body = given(
        id=model,
        config=_json(file),
        parameters=None if parameters is None else int(parameters),
        active_parameters=None if active_parameters is None else int(active_parameters),
        licence=licence,
        quality=quality,
    )
    row = api.post(_MODELS, body)
    if as_json:
        print_json(row)
    else:
        typer.echo(
            f"{row['id']}: {row['parameters']:,} parameters, {row['kv_bytes_per_token']:,} bytes of KV cache a token"
        )


@prices_app.command("list")
@with_management
def list_prices(
    api: Management,
    gpu: Annotated[str | None, typer.Option(help="Id or alias.")] = None,
    cloud: Annotated[str | None, typer.Option(help="Such as aws.")] = None,
    region: Annotated[str | None, typer.Option(help="Such as us-east-1.")] = None,
    market: Annotated[str | None, typer.Option(help="on_demand, spot or reserved.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List prices with their dates, and what speaks against them."""
    print_rows(
        api.rows(_PRICES, gpu=gpu, cloud=cloud, region=region, market=market),
        {
            "cloud": "cloud",
            "region": "region",
            "zone": "zone",
            "instance": "instance_type",
            "GPUs": lambda r: f"{r['gpu_count']} x {r['gpu']}",
            "market": "market",
            "USD/h": lambda r: f"{float(r['usd_per_hour']):.4f}",
            "as of": "as_of",
            "doubts": lambda r: "; ".join(r["doubts"]),
        },
        nothing="no such prices",
        as_json=as_json,
    )


@prices_app.command("import")
@with_management
def import_prices(
    api: Management,
    file: FileArgument,
    kind: Annotated[str, typer.Option("--format", help="skypilot, aws, gcp or azure.")],
    cloud: Annotated[str | None, typer.Option(help="Where the file does not say it.")] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="DATE", help="When it was fetched, where it does not say it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Import a price list: SkyPilot's CSV, an AWS offer file or spot history, Google's SKUs, Azure's retail prices."""
    rows = price_rows(file, kind, cloud, _date(as_of))
    if not rows:
        raise InvalidRequest(f"{file} has no price of a GPU")
    answers = []
    for day in sorted({row.as_of for row in rows}, key=str):
        part = [row for row in rows if row.as_of == day]
        body = given(format="skypilot", content=_csv(part), as_of=None if day is None else day.isoformat())
        answers.append(api.post(_PRICES, body))
    if as_json:
        print_json(answers)
        return
    imported, doubtful = (sum(answer[name] for answer in answers) for name in ("imported", "doubtful"))
    typer.echo(f"{imported:,} prices imported, {doubtful:,} of them doubtful")
    for reason in (each for answer in answers for each in answer["refused"]):
        typer.echo(f"  not used: {reason}")


def _csv(rows: list[PriceRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        # GPUs without their host have no instance type, by which the other side knows them.
        instance = "" if row.host_missing else row.instance_type
        place = (row.cloud, instance, row.gpu, f"{row.gpu_count:g}", row.region, row.zone or "")
        writer.writerow((*place, row.on_demand or "", row.spot or "", row.reserved or "", row.source))
    return text.getvalue()


def _date(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).date()
    except ValueError:
        raise InvalidRequest(f"--as-of {text}: write a date such as 2026-06-01") from None


def _json(file: Path) -> Any:
    try:
        return msgspec.json.decode(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({error.strerror})") from None
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"{file} is not JSON ({error})") from None
