"""The agent becomes another version: a real pip, a real environment, packages made for the test."""

import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from crosslogic.agent.upgrade import install

PRESENT = version("crosslogic")


def make_wheel(folder: Path, number: str, agent: str = "") -> None:
    """A package `crosslogic` of this version, with nothing in it but what is asked of it."""
    info = f"crosslogic-{number}.dist-info"
    main = f"import sys\nprint('version {number}', *sys.argv[1:])\n"
    files = {
        "crosslogic/__init__.py": "",
        "crosslogic/cli/__init__.py": "",
        "crosslogic/cli/__main__.py": main,
        "crosslogic/cli/agent.py": agent,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: crosslogic\nVersion: {number}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"crosslogic-{number}-py3-none-any.whl", "w") as wheel:
        for name, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, content)


@pytest.fixture
def packages(tmp_path: Path) -> tuple[str, ...]:
    folder = tmp_path / "packages"
    folder.mkdir()
    make_wheel(folder, PRESENT)
    make_wheel(folder, "9.9.1")
    make_wheel(folder, "9.9.2", agent="raise RuntimeError('a bad release')")
    return ("--no-index", "--find-links", str(folder), "--no-deps", "--disable-pip-version-check")


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an environment of its own, which shares pip with the interpreter that this one was made of."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    # symlinks to the base interpreter: its pip is seen through system_site_packages
    subprocess.run(
        [
            str(Path(sys.base_prefix) / "bin" / "python3"),
            "-m",
            "venv",
            "--without-pip",
            "--system-site-packages",
            tmp_path / "env",
        ],
        check=True,
    )
    return str(tmp_path / "env" / "bin" / "python")


def installed(python: str) -> str:
    ask = "from importlib.metadata import version; print(version('crosslogic'))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def become(python: str) -> tuple[int, list[str]]:
    """Start anew as that interpreter: our process id, and what was written."""
    ours = "import os; from crosslogic.agent.upgrade import start_anew; print(os.getpid(), flush=True)"
    command = [sys.executable, "-c", f"{ours}; start_anew(['agent', '--spot'], python={python!r})"]
    began = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output, _ = began.communicate(timeout=60)
    return began.pid, output.splitlines()


async def test_a_good_version_takes_over_in_place_and_a_bad_one_is_undone(
    python: str, packages: tuple[str, ...]
) -> None:
    assert not await install("9.9.2", python=python, options=packages)  # it cannot be imported
    assert installed(python) == PRESENT
    assert not await install("9.9.3", python=python, options=packages)  # there is none
    assert installed(python) == PRESENT
    assert await install("9.9.1", python=python, options=packages)
    assert installed(python) == "9.9.1"
    pid, output = become(python)
    assert output == [str(pid), "version 9.9.1 agent --spot"]


@pytest.mark.parametrize("wanted", ["1.0; rm -rf /", "--upgrade", "../x", "", "latest"])
async def test_what_is_no_version_never_reaches_pip(wanted: str, tmp_path: Path) -> None:
    witness = tmp_path / "called"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch {witness}\n")
    python.chmod(0o755)
    assert not await install(wanted, python=str(python))
    assert not witness.exists()
