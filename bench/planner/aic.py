"""AIConfigurator beside ours: `python -m bench.planner.aic` asks it for rows that both can answer.

It lives in an environment of its own (`bench/.venvs/aiconfigurator`, 850 MB), which this makes when it is not there.
What it answered is kept in `data/aiconfigurator.json`, from which `make bench-planner` takes the comparison; the rows
are drawn once, of models whose configurations come with it, so that it needs no network.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from bench.planner.held_out import Error
from crosslogic.compass.capacity.rows import MeasuredRow, layout_of, packaged_rows

VERSION = "0.12.0"
ROWS = 80
HERE = Path(__file__).parent
ANSWERS = HERE / "data" / "aiconfigurator.json"
ENVIRONMENT = HERE.parent / ".venvs" / "aiconfigurator"
SYSTEMS = ("h100_sxm", "h200_sxm", "b200_sxm")
MODELS = {
    ("meta-llama/Llama-3.1-70B", "bf16"): ("meta-llama/Meta-Llama-3.1-70B", {}),
    ("meta-llama/Llama-3.1-70B", "fp8"): ("nvidia/Llama-3.1-70B-Instruct-FP8", {}),
    ("meta-llama/Llama-3.1-8B-Instruct", "bf16"): ("meta-llama/Meta-Llama-3.1-8B", {}),
    ("Qwen/Qwen3-32B", "bf16"): ("Qwen/Qwen3-32B", {}),
    ("Qwen/Qwen3-32B", "fp8"): ("Qwen/Qwen3-32B-FP8", {}),
    ("Qwen/Qwen3-235B-A22B-FP8", "fp8"): ("Qwen/Qwen3-235B-A22B-FP8", {}),
    ("MiniMaxAI/MiniMax-M2.5", "fp8"): ("MiniMaxAI/MiniMax-M2.5", {}),
    ("MiniMaxAI/MiniMax-M2.5", "fp4"): ("nvidia/MiniMax-M2.5-NVFP4", {}),
    ("deepseek-ai/DeepSeek-R1", "fp8"): ("deepseek-ai/DeepSeek-R1", {}),
    ("deepseek-ai/DeepSeek-V3", "fp8"): ("deepseek-ai/DeepSeek-V3", {}),
    ("moonshotai/Kimi-K2.5", "fp4"): ("nvidia/Kimi-K2.5-NVFP4", {}),
}


class Answer(msgspec.Struct, frozen=True):
    """Of one row, as it stands in the file; None: it had none, for this reason."""

    key: str
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    error: str | None = None


def drawn() -> list[MeasuredRow]:
    """The same rows each time, of what it may know."""
    rows = [
        row
        for row in packaged_rows()
        if (row.configuration.model, row.configuration.precision) in MODELS and row.configuration.gpu in SYSTEMS
    ]
    Random(0).shuffle(rows)
    return rows[:ROWS]


def key_of(row: MeasuredRow) -> str:
    c, load = row.configuration, row.load
    name = f"{c.model} {c.tp}x{c.gpu} {c.precision} {c.backend} {c.layout}".strip()
    return f"{name} | {load.running:.0f} at once, {load.prompt_tokens:.0f}/{load.output_tokens:.0f}"


def question(row: MeasuredRow) -> dict[str, Any]:
    """The row as its `cli_estimate` wants it: the batch is of each replica of attention."""
    configuration, load = row.configuration, row.load
    layout = layout_of(configuration)
    model, more = MODELS[configuration.model, configuration.precision]
    experts = {"moe_ep_size": layout.ep, "moe_tp_size": layout.gpus // layout.ep} if _mixture(model) else {}
    return {
        "model_path": model,
        "system_name": configuration.gpu,
        "backend_name": configuration.backend,
        "isl": round(load.prompt_tokens),
        "osl": round(load.output_tokens),
        "batch_size": max(1, round(load.running / layout.replicas)),
        "tp_size": layout.tp,
        "attention_dp_size": layout.replicas,
        **experts,
        **more,
    }


def answers() -> dict[str, Answer]:
    """What it answered when it was last asked."""
    if not ANSWERS.exists():
        return {}
    return {each.key: each for each in msgspec.json.decode(ANSWERS.read_bytes(), type=list[Answer])}


def compared(errors: Sequence[Error]) -> list[tuple[Error, float, float]]:
    """Our held-out rows that it answered, with its relative errors of ITL and TTFT."""
    known = answers()
    asked = {row: known.get(key_of(row)) for row in drawn()}
    found = []
    for each in errors:
        answer = asked.get(each.row)
        if answer is not None and answer.tpot_ms and answer.ttft_ms:
            row = each.row
            found.append((each, answer.tpot_ms / 1e3 / row.itl_s - 1, answer.ttft_ms / 1e3 / row.ttft_s - 1))
    return found


def main() -> int:
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"aiconfigurator=={VERSION}"], check=True)
    rows = drawn()
    asked = msgspec.json.encode([question(row) for row in rows])
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, HERE / "aic_side.py"], input=asked, stdout=subprocess.PIPE, check=True, env=offline)
    lines = [line[1:] for line in done.stdout.splitlines() if line.startswith(b"@")]
    found = [Answer(key_of(row), **msgspec.json.decode(line)) for row, line in zip(rows, lines, strict=True)]
    ANSWERS.parent.mkdir(exist_ok=True)
    ANSWERS.write_bytes(b"[\n" + b",\n".join(msgspec.json.encode(each) for each in found) + b"\n]\n")
    print(f"{sum(each.error is None for each in found)} of {len(found)} rows answered")
    return 0


def _mixture(model: str) -> bool:
    return not any(dense in model for dense in ("Llama", "Qwen3-32B"))


if __name__ == "__main__":
    sys.exit(main())
