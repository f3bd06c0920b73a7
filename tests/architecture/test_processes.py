"""What each process brings into memory: a fresh interpreter imports its entry and says which modules are there."""

import ast
import json
import subprocess
import sys

import pytest

from tests.architecture.sources import PACKAGE, ROOT, python_files, shown, tree

MOST_OF_A_WORKER = 1080  # one worker for each core: what all of them hold is held many times
NOT_FOR_REQUESTS = {"api", "billing", "compass", "insight", "jobs", "simulator", "cli", "agent"}
NOT_FOR_WORKERS = {"fastapi", "starlette", "stripe", "alembic", "numpy", "scipy", "statsmodels", "jinja2", "typer"}


def loaded_by(module: str) -> set[str]:
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(said.stdout))


def rooms_of(modules: set[str]) -> set[str]:
    return {name.split(".")[1] for name in modules if name.startswith("crosslogic.")}


def test_a_gateway_worker_holds_what_requests_need_and_little_else() -> None:
    modules = loaded_by("crosslogic.wiring.worker")
    assert rooms_of(modules) & NOT_FOR_REQUESTS == set()
    assert {name.partition(".")[0] for name in modules} & NOT_FOR_WORKERS == set()
    assert len(modules) <= MOST_OF_A_WORKER


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("crosslogic.wiring", {"wiring.gateway", "wiring.control", "settings"}),
        ("crosslogic.agent.run", {"api", "billing", "compass", "gateway", "store", "tenancy"}),
        ("crosslogic.cli.main", {"api", "billing", "compass", "gateway", "store", "wiring"}),
        ("crosslogic.fleet.model", {"store", "net", "settings"}),
    ],
)
def test_who_imports_little_gets_little(module: str, without: set[str]) -> None:
    found = {name.removeprefix("crosslogic.") for name in loaded_by(module)}
    assert {name for name in found if any(name == one or name.startswith(f"{one}.") for one in without)} == set()


def test_the_product_reads_nothing_outside_of_its_distribution() -> None:
    """What the tests of this repository find beside it is not there where the product is installed."""
    outside = [
        f"{shown(path)}:{node.lineno}"
        for path in python_files(PACKAGE)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.startswith(("/work", "../", "shared/")) or "/shared/" in node.value
    ]
    assert outside == []
