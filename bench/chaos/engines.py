"""What runs on a node of the chaos: the simulated engine, or a real vLLM on a processor core."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINE_VENV = ROOT / ".venv-engine"


@dataclass(frozen=True)
class Engine:
    """`longest` bounds the answers, so that each takes a few seconds at most."""

    model: str
    command: tuple[str, ...]  # may hold {port}
    longest: int
    key: str = ""
    start_s: float = 30.0  # that a start may take
    idle_s: float = 1.5  # longest silence within an answer that is no failure
    first_token_s: float = 5.0
    exact: bool = (
        True  # the same greedy request has the same answer, and a text counts as many tokens as it was made of
    )

    def argv(self, port: int) -> list[str]:
        return [word.replace("{port}", str(port)) for word in self.command]

    @property
    def environment(self) -> dict[str, str]:
        return {"ENGINE_API_KEY": self.key} if self.key else {}


_LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
SIMULATED = Engine(_LLAMA, (sys.executable, "-m", "crosslogic.simulator", "--model", _LLAMA, "--port", "{port}"), 200)
VLLM = Engine(
    "tiny-llama",
    (str(ROOT / "tools/engine/serve.sh"), str(ENGINE_VENV), str(ENGINE_VENV / "tiny-llama"), "{port}", "tiny-llama"),
    longest=400,
    key="sk-node-of-the-chaos",
    start_s=1200.0,
    idle_s=4.0,  # one that shares its core with others starves now and then
    first_token_s=20.0,
    exact=False,
)


def engine_named(name: str) -> Engine:
    """Raises SystemExit where it is not installed."""
    if name == "simulate":
        return SIMULATED
    if not (ENGINE_VENV / "installed.txt").exists():
        raise SystemExit(f"there is no engine in {ENGINE_VENV}; run: tools/engine/install.sh {ENGINE_VENV}")
    return VLLM
