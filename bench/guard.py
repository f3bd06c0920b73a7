"""The guard against getting slower: our cost over the pass-through's, measured in turn in the same run. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figures, middle

THRESHOLDS = Path(__file__).parent / "guard.json"


@dataclass(frozen=True)
class Verdict:
    """One ratio beside its threshold."""

    what: str
    ratio: float
    most: float

    @property
    def held(self) -> bool:
        """True when the ratio is not over its threshold."""
        return self.ratio <= self.most

    def __str__(self) -> str:
        return (
            f"{'ok  ' if self.held else 'OVER'} {self.what}: {self.ratio:.2f} × pass-through, at most {self.most:.2f}"
        )


def thresholds(path: Path = THRESHOLDS) -> dict[str, float]:
    """The committed thresholds."""
    return {name: float(value) for name, value in json.loads(path.read_text())["ratios"].items()}


def judge(ours: Figures, yardstick: Figures, most: dict[str, float], first: int = 0) -> list[Verdict]:
    """Compares round with round, so that a slow moment of the machine hits both; raises ValueError without rounds.

    `first` is the number of the first round that counts.
    """
    requests = ours.cpu_us_per_request_rounds[first:], yardstick.cpu_us_per_request_rounds[first:]
    chunks = ours.cpu_us_per_chunk_rounds[first:], yardstick.cpu_us_per_chunk_rounds[first:]
    return [
        Verdict("CPU a request", _ratio(*requests), most["request"]),
        Verdict("CPU a chunk", _ratio(*chunks), most["chunk"]),
    ]


def _ratio(ours: list[float], yardstick: list[float]) -> float:
    ratio = middle([one / other for one, other in zip(ours, yardstick, strict=True)])
    if ratio is None:
        raise ValueError("nothing was measured")
    return ratio
