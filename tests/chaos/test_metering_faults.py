"""A short run of `bench.metering_faults`: everything goes under load, several things at a time, and nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_short_run_of_faults_finds_no_discrepancy(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench.metering_faults", "--seconds", "15", "--pace", "2", "--rate", "150"]
    command += ["--callers", "24", "--results", str(results)]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=580)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (leg,) = json.loads(results.read_text())["legs"]
    assert sum(leg["discrepancies"].values()) == 0
    assert leg["whole"] > 100, ran.stdout
    assert len(leg["faults"]) >= 8, ran.stdout
