"""Who may import what, where import-linter's contracts (.importlinter) cannot see it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

from tests.architecture.sources import PACKAGE, ROOT, imported, python_files, shown, tree

# Named after their technology: chosen in one place, so that a feature is switched off by another adapter.
ADAPTERS = {"memory", "null", "redis", "stripe", "paypal"}
# The readers of the environment, besides options that typer itself fills from it.
READ_ENVIRONMENT = {
    "src/crosslogic/cli/options.py",
    "src/crosslogic/cli/main.py",  # tells the linear algebra how many threads to have; reads nothing
}


def test_nothing_is_imported_inside_a_function() -> None:
    late = [
        f"{shown(path)}:{statement.lineno}"
        for path in python_files(PACKAGE)
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in ast.walk(function)
        if isinstance(statement, ast.Import | ast.ImportFrom)
    ]
    assert late == []


def test_only_wiring_chooses_adapters() -> None:
    found = []
    for path in python_files(PACKAGE):
        room = path.relative_to(PACKAGE).parts[0]
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "crosslogic" and len(parts) == 3 and parts[2] in ADAPTERS:
                of_net = parts[1] == "net"  # transports, which adapters are made of
                if room not in ("wiring", parts[1]) and not of_net:
                    found.append(f"{shown(path)} imports {name}")
    assert found == []


def test_only_settings_read_the_environment() -> None:
    readers = {
        shown(path)
        for path in python_files(PACKAGE)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and _is_os(node.value)
    }
    assert readers == READ_ENVIRONMENT


def test_no_test_uses_mocks() -> None:
    # Our own adapters are the fakes: in memory, SQLite, the simulated node.
    users = [
        shown(path)
        for path in python_files(ROOT / "tests")
        if any(name == "unittest.mock" or name.split(".")[0] in ("mock", "pytest_mock") for name in imported(path))
    ]
    assert users == []


def test_what_runs_needs_no_development_dependency() -> None:
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines()
        if "==" in line and not line.startswith(" ")
    }
    # What an extra brings is imported only where the extra is asked for.
    extras = {
        re.split(r"[>=<;\[ ]", each)[0].lower()
        for name, needs in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
            "optional-dependencies"
        ].items()
        if name not in ("dev", "build")
        for each in needs
    }
    locked |= extras
    names = {"yaml": "pyyaml", "grpc": "grpcio", "google": "protobuf", "stdnum": "python-stdnum"}
    needed = {
        name.split(".")[0]
        for path in python_files(PACKAGE)
        for name in imported(path)
        if name.split(".")[0] not in {*sys.stdlib_module_names, "crosslogic"}
    }
    assert {name for name in needed if names.get(name, name).lower().replace("_", "-") not in locked} == set()


def _is_os(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id == "os"


def test_every_room_says_what_it_is() -> None:
    silent = [shown(path) for path in python_files(PACKAGE) if path.name != "__init__.py" and not _docstring(path)]
    assert silent == []


def _docstring(path: Path) -> str | None:
    return ast.get_docstring(tree(path))
