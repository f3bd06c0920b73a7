"""How many fields of sentences with known meaning the planner reads right: `python -m bench.intent.score`.

`scenarios.json` is llm-d-planner's evaluation set (Apache-2.0). Each set of paraphrases was written before the rules
were mended by it; its `source` says so, and docs/compass.md what the first reading of each gave.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.intent.deterministic import extract
from crosslogic.compass.intent.model import DeploymentIntent
from crosslogic.compass.intent.ports import Role, Turn
from crosslogic.compass.specification.generate import specify
from crosslogic.kernel.money import PUSD_PER_USD

FOLDER = Path(__file__).parent
SETS = (
    "scenarios",
    "paraphrases",
    "paraphrases_hard",
    "paraphrases_third",
    "paraphrases_fourth",
    "paraphrases_fifth",
    "paraphrases_sixth",
    "languages",
    "languages_second",
)


def load(name: str) -> list[dict[str, Any]]:
    scenarios: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["scenarios"]
    return scenarios


def turns_of(scenario: Mapping[str, Any]) -> list[Turn]:
    history = [Turn(Role(each["role"]), each["content"]) for each in scenario["conversation_history"] or ()]
    return [*history, Turn(Role.USER, scenario["user_message"])]


def seen(intent: DeploymentIntent, field: str) -> Any:
    """A field as the evaluation sets name it."""
    budget, power = intent.budget, intent.datacenter
    special: dict[str, Any] = {
        "experience_class": specify(intent).experience,
        "domain_specialization": list(intent.domains),
        "preferred_gpu_types": list(intent.preferred_gpus),
        "budget_monthly_usd": None if budget.per_month_pusd is None else budget.per_month_pusd / PUSD_PER_USD,
        "budget_hourly_usd": None if budget.per_hour_pusd is None else budget.per_hour_pusd / PUSD_PER_USD,
        "power_usd_per_kwh": None
        if power is None or power.power_per_kwh_pusd is None
        else power.power_per_kwh_pusd / PUSD_PER_USD,
    }
    return special[field] if field in special else getattr(intent, field)


def right(value: Any, expected: Any) -> bool:
    if not isinstance(expected, dict):
        return bool(value == expected) if not isinstance(expected, float) else abs((value or 0) - expected) < 1e-6
    names = {str(each).lower() for each in value} if isinstance(value, list | tuple) else set()
    checks = {
        "exact": lambda want: names == {_gpu(each) for each in want},
        "one_of": lambda want: value in want,
        "min": lambda want: value is not None and value >= want,
        "max": lambda want: value is not None and value <= want,
        "contains": lambda want: {_gpu(each) for each in want} <= names,
        "lacks": lambda want: not {_gpu(each) for each in want} & names,
        "contains_any": lambda want: bool({_gpu(each) for each in want} & names),
        "contains_any_partial": lambda want: any(part in name for part in want for name in names),
    }
    return all(checks[how](want) for how, want in expected.items())


def _gpu(name: str) -> str:
    known = find_gpu(name)
    return known.id if known else name.lower()


def score(name: str) -> tuple[int, int, list[str]]:
    """Right fields, all fields, and what was wrong."""
    good, total, wrong = 0, 0, []
    for scenario in load(name):
        intent = extract(turns_of(scenario))
        for field, expected in scenario["expected"].items():
            total += 1
            value = seen(intent, field)
            if right(value, expected):
                good += 1
            else:
                wrong.append(f"{scenario['id']}: {field} is {value!r}, expected {expected!r}")
    return good, total, wrong


def main() -> int:
    for name in SETS:
        good, total, wrong = score(name)
        print(f"{name}: {good} of {total} fields right ({good / total:.1%})")
        for line in wrong:
            print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
