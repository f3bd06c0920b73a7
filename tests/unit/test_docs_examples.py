"""What the documentation shows in Python runs, and says what it says it does."""

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_planners_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "compass.md").read_text("utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/compass.md", "exec"), names)
    assert names["made"].specification.users == 1000
    assert names["made"].specification.slo.ttft_p95_ms == 500
    said = capsys.readouterr().out
    assert "meta-llama/Llama-3.1-8B-Instruct@" in said
    assert "cost a month" in said
    assert "likely to meet" in said
    assert "inferenceservice.yaml InferenceService" in said
