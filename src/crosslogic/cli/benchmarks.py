"""`crosslogic benchmarks`: what was measured, from files of load generators and by measuring a running server."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from crosslogic.catalog.gpus import find_gpu, load_gpus
from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_table
from crosslogic.compass.knowledge.files import read_file
from crosslogic.compass.knowledge.live import Sweep, measure
from crosslogic.compass.knowledge.model import Benchmark, Setup
from crosslogic.kernel.errors import ConfigurationError, InvalidRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Import, measure and list benchmarks.")

_PATH = "/admin/compass/benchmarks"
_AT_ONCE = 500

GpuOption = Annotated[str, typer.Option("--gpu", help="GPU that it ran on, such as H100.")]
CountOption = Annotated[int, typer.Option("--gpu-count", min=1, help="GPUs of one engine.")]
PrecisionOption = Annotated[str, typer.Option(help="Of the weights: bf16, fp8, int8, int4 or fp4.")]
BackendOption = Annotated[str, typer.Option(help="The engine: vllm, sglang or trtllm.")]
VersionOption = Annotated[str | None, typer.Option("--backend-version", help="Of the engine.")]
PromptOption = Annotated[int | None, typer.Option("--prompt-tokens", min=1, help="As they were asked for.")]
OutputOption = Annotated[int | None, typer.Option("--output-tokens", min=2, help="As they were asked for.")]


@app.command("import")
@with_management
def import_file(
    api: Management,
    file: Annotated[Path, typer.Argument(help="What guidellm, aiperf or `vllm bench serve` wrote, as JSON.")],
    gpu: GpuOption,
    model: Annotated[str, typer.Option(help="Model; else the one that the file names.")] = "",
    gpu_count: CountOption = 1,
    precision: PrecisionOption = "bf16",
    backend: BackendOption = "vllm",
    backend_version: VersionOption = None,
    prompt_tokens: PromptOption = None,
    output_tokens: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the points of a result file. Failed requests are not counted, over-saturated points are left out."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    setup = Setup(model, _gpu(gpu), gpu_count, precision, backend, backend_version)
    if (prompt_tokens is None) != (output_tokens is None):
        raise InvalidRequest("give both --prompt-tokens and --output-tokens, or neither")
    profile = (prompt_tokens, output_tokens) if prompt_tokens and output_tokens else None
    read = read_file(content, setup, profile=profile, source=f"file: {file.name}"[:200])
    if any(not point.setup.model for point in read.benchmarks):
        raise InvalidRequest(f"a {read.tool} file names no model; give --model")
    added = _send(api, read.benchmarks)
    left_out = [f"point {each.point}: {each.reason}" for each in read.left_out]
    if as_json:
        print_json({"tool": read.tool, "added": added, "read": len(read.benchmarks), "left_out": left_out})
        return
    typer.echo(f"{added} of {len(read.benchmarks)} points of {read.tool} added; the others were there already")
    for line in left_out:
        typer.echo(f"left out {line}")


@app.command()
@with_management
def run(
    api: Management,
    target: Annotated[str, typer.Option("--target", help="OpenAI-compatible server, such as http://host:8000.")],
    model: Annotated[str, typer.Option(help="Model as the server names it.")],
    gpu: GpuOption,
    rates: Annotated[str, typer.Option(help="Requests a second, rising, such as 1,2,4,8.")] = "1,2,4,8",
    catalogue_model: Annotated[str | None, typer.Option(help="The model's id in the catalogue, if it differs.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each rate is offered.")] = 30.0,
    burstiness: Annotated[float, typer.Option(help="Coefficient of variation of gaps; 1 is Poisson.")] = 1.0,
    timeout: Annotated[float, typer.Option(help="Seconds until a request counts as failed.")] = 120.0,
    gpu_count: CountOption = 1,
    precision: PrecisionOption = "bf16",
    backend: BackendOption = "vllm",
    backend_version: VersionOption = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of each prompt, about.")] = 512,
    output_tokens: Annotated[int, typer.Option(min=2, help="Of each answer.")] = 256,
    key: Annotated[
        str | None,
        typer.Option("--key", envvar="CROSSLOGIC_API_KEY", help="Key for the server; better in the environment."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep/--dry-run", help="Add the points to the benchmark table.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Measure a running server: offered rates one after another, until it keeps up no more."""
    setup = Setup(model, _gpu(gpu), gpu_count, precision, backend, backend_version)
    sweep = Sweep(_rates(rates), prompt_tokens, output_tokens, seconds, burstiness, timeout)

    def told(point: Benchmark, reason: str | None) -> None:
        if not as_json:
            typer.echo(f"{point.offered_per_second:g} requests/s: {_line(point)}" + (f" ({reason})" if reason else ""))

    found = asyncio.run(measure(target, setup, sweep, api_key=key, told=told))
    if catalogue_model is not None:
        named = msgspec.structs.replace(setup, model=catalogue_model)
        found = [msgspec.structs.replace(point, setup=named) for point in found]
    added = _send(api, found) if keep else 0
    if as_json:
        print_json({"added": added, "benchmarks": msgspec.to_builtins(found)})
    else:
        typer.echo(f"{added} points added" if keep else "nothing was kept")


@app.command("list")
@with_management
def list_benchmarks(
    api: Management,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Only on this GPU.")] = None,
    source: Annotated[str | None, typer.Option(help="Only from this source.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what was measured."""
    rows = list(api.rows(_PATH, model=model, gpu=gpu, source=source))
    if as_json:
        print_json(rows)
        return
    columns = ("model", "gpus", "tokens", "offered/s", "served/s", "TTFT p95", "ITL p95", "E2E p95", "source")
    print_table(columns, (_row(row) for row in rows), nothing="nothing was measured")


def _send(api: Management, points: list[Benchmark] | tuple[Benchmark, ...]) -> int:
    added = 0
    for start in range(0, len(points), _AT_ONCE):
        rows = [_body(point) for point in points[start : start + _AT_ONCE]]
        added += api.post(_PATH, {"benchmarks": rows})["added"]
    return added


def _body(point: Benchmark) -> dict[str, Any]:
    fields = msgspec.to_builtins(point)
    return {**fields.pop("setup"), **fields}


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    figures = (row["ttft_p95_ms"], row["itl_p95_ms"], row["e2e_p95_ms"])
    return (
        row["model"],
        f"{row['gpu_count']} x {row['gpu']}",
        f"{row['prompt_tokens']} -> {row['output_tokens']}",
        row["offered_per_second"],
        row["requests_per_second"],
        *(None if each is None else f"{each:.4g} ms" for each in figures),
        row["source"],
    )


def _line(point: Benchmark) -> str:
    if point.requests_per_second is None or point.ttft_p95_ms is None or point.itl_p95_ms is None:
        return "no request succeeded"
    served = f"{point.requests_per_second:.3g}/s served"
    return f"{served}, p95 TTFT {point.ttft_p95_ms:.4g} ms, ITL {point.itl_p95_ms:.3g} ms, {point.failed} failed"


def _gpu(name: str) -> str:
    gpu = find_gpu(name)
    if gpu is None:
        raise ConfigurationError(f"there is no GPU {name!r}; one of {', '.join(g.name for g in load_gpus().values())}")
    return gpu.id


def _rates(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise InvalidRequest(f"--rates {text}: write numbers such as 1,2,4,8") from None
