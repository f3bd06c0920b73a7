"""`crosslogic simulate`: one simulated vLLM server in a process of its own.

The documents' environment variables (MODEL_NAME, GPU_TYPE, TENSOR_PARALLEL_SIZE, BENCHMARKS_PATH) set the same as
the options; an option wins. Exit code 0 after SIGTERM or Ctrl-C, 2 for a wrong setting, 1 after a simulated crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import DEFAULT_GPU, REFERENCE_MODEL, Profile, find_profile, load_table

DRAIN_S = 5.0
CRASH_FLUSH_S = 0.1  # lets the error events reach the sockets before the process is gone


def simulate(
    model: Annotated[str, typer.Option(envvar="MODEL_NAME", help="Model to simulate.")] = REFERENCE_MODEL,
    gpu: Annotated[str, typer.Option(envvar="GPU_TYPE", help="GPU to simulate, as H100 or NVIDIA-L4.")] = DEFAULT_GPU,
    tp: Annotated[
        int, typer.Option(envvar="TENSOR_PARALLEL_SIZE", help="GPUs that the model is spread over.", min=1)
    ] = 1,
    precision: Annotated[str | None, typer.Option(help="bf16, fp8 or fp4; the best known when not given.")] = None,
    benchmarks: Annotated[
        Path | None,
        typer.Option(envvar="BENCHMARKS_PATH", help="Measured rows (CSV) or a fitted table (JSON) of your own."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    speedup: Annotated[float, typer.Option(help="How many times faster than the hardware.", min=0.001)] = 1.0,
    seed: Annotated[int, typer.Option(help="Same seed, same texts, faults and step noise.")] = 0,
    api_key: Annotated[
        str | None, typer.Option(envvar="VLLM_API_KEY", help="Key that callers must send.", show_default=False)
    ] = None,
    startup_delay_s: Annotated[float, typer.Option(help="Seconds until /health turns 200.", min=0.0)] = 0.0,
    max_num_seqs: Annotated[int, typer.Option(help="Sequences that run at once.", min=1)] = 256,
    max_num_batched_tokens: Annotated[int, typer.Option(help="Tokens of one step.", min=2)] = 8192,
    max_queue: Annotated[int, typer.Option(help="Sequences that may wait; more get 429.", min=0)] = 1024,
    max_model_len: Annotated[int | None, typer.Option(help="Context window in tokens.", min=2)] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Once ready, this file holds {base_url, model, pid} as JSON.")
    ] = None,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="Stop when standard input ends; ignore Ctrl-C.")
    ] = False,
) -> None:
    """Run a simulated vLLM server: no GPU, latency that emerges from load."""
    options = NodeOptions(
        host=host,
        port=port,
        speedup=speedup,
        seed=seed,
        api_key=api_key,
        startup_delay_s=startup_delay_s,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_queue=max_queue,
        max_model_len=max_model_len,
    )
    try:
        table = load_table(benchmarks) if benchmarks is not None else None
        profile = find_profile(model, gpu, tp, precision, table)
        if max_num_batched_tokens <= max_num_seqs:
            raise ConfigurationError("--max-num-batched-tokens must be larger than --max-num-seqs")
        code = asyncio.run(serve(profile, options, ready_file, exit_with_parent=exit_with_parent))
    except ConfigurationError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"error: cannot listen on {host}:{port}: {error.strerror or error}; choose another --port", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


async def serve(
    profile: Profile, options: NodeOptions, ready_file: Path | None = None, *, exit_with_parent: bool = False
) -> int:
    """Run one node until a signal, the parent's end or a simulated crash; returns the exit code."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(code: int) -> None:
        if not stopped.done():
            stopped.set_result(code)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, 0)
    if exit_with_parent:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which lets us drain
        _watch_parent(loop, lambda: stop(0))
    node = SimulatedNode(profile, options, on_crash=lambda: stop(1))
    await node.start()
    announcement = {"base_url": node.url, "model": profile.model, "pid": os.getpid()}
    sys.stdout.write(f"simulating {profile.model} on {profile.tp}x {profile.gpu} ({profile.evidence}) at {node.url}\n")
    with contextlib.suppress(OSError):  # nobody may read it
        sys.stdout.flush()
    if ready_file is not None:
        _write_whole(ready_file, msgspec.json.encode(announcement))
    code = await stopped
    if code == 1:
        await asyncio.sleep(CRASH_FLUSH_S)
    await node.close(0.0 if code else DRAIN_S)
    return code


def _watch_parent(loop: asyncio.AbstractEventLoop, gone: Callable[[], None]) -> None:
    """Call `gone` at the end of standard input; the parent holds the other end of that pipe."""
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            gone()

    try:
        loop.add_reader(descriptor, readable)
    except PermissionError:  # a regular file or /dev/null cannot be waited for, and is at its end already
        gone()


def _write_whole(path: Path, data: bytes) -> None:
    """Nobody sees half of the file."""
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(data)
    draft.replace(path)


def main() -> None:
    typer.run(simulate)
