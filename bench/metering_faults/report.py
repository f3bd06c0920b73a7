"""What a run says: lines while it runs, one leg of a results file at its end, a table over all legs."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

KINDS = ("lost", "duplicate", "mis-counted", "mis-priced", "log or roll-ups")


def say(told: str) -> None:
    sys.stdout.write(f"{told}\n")
    sys.stdout.flush()


def append(path: Path, leg: dict[str, Any]) -> None:
    legs = json.loads(path.read_text())["legs"] if path.exists() else []
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps({"legs": [*legs, leg]}, indent=1) + "\n")
    draft.replace(path)


def table(path: Path) -> str:
    """All legs together, as Markdown."""
    legs: list[dict[str, Any]] = json.loads(path.read_text())["legs"]
    faults: Counter[str] = Counter()
    figures: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for leg in legs:
        faults.update(leg["faults"])
        faults.update({f"a caller that {_verb(name)}": count for name, count in leg["callers"].items()})
        figures.update(leg["figures"])
        found.update(leg["discrepancies"])

    def total(name: str) -> int:
        return round(sum(leg[name] for leg in legs))

    judged = total("judged")
    lines = [
        f"| | {len(legs)} legs, {min(leg['at'] for leg in legs)} to {max(leg['at'] for leg in legs)} UTC |",
        "| --- | --- |",
        f"| requests judged, in {total('seconds'):,} s with faults | {judged:,} |",
        f"| answered, of them whole | {total('answered'):,}, {total('whole'):,} |",
        *(f"| {name} | {count:,} |" for name, count in figures.items() if name != "pico-dollars billed"),
        f"| US dollars billed | {figures['pico-dollars billed'] / 1e12:.6f} |",
        *(f"| discrepancies: {kind} | {found[kind]:,} |" for kind in KINDS),
        f"| so the rate of discrepancies is below, at 95 % | {bound(judged, sum(found.values())):.2e} |",
        "",
        f"| fault | times ({sum(faults.values()):,} in all) |",
        "| --- | --- |",
        *(f"| {name} | {count:,} |" for name, count in sorted(faults.items(), key=lambda item: (-item[1], item[0]))),
    ]
    return "\n".join(lines)


def _verb(behaviour: str) -> str:
    return {"slow reader": "reads slowly", "half-open": "stays half open"}.get(behaviour, behaviour)


def bound(judged: int, found: int) -> float:
    """The upper 95 % confidence bound of a rate of which `found` in `judged` were seen (Poisson)."""
    if judged == 0:
        return 1.0
    low, high = 0.0, 10.0 + 4.0 * found
    for _ in range(100):
        middle = (low + high) / 2
        below = sum(math.exp(-middle + k * math.log(middle) - math.lgamma(k + 1)) for k in range(found + 1))
        low, high = (middle, high) if below > 0.05 else (low, middle)
    return high / judged
