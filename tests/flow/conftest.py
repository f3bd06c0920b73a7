"""The clouds that flow tests share. Starting one takes seconds, so each serves many tests, which leave it as it was.

cloud       `crosslogic up` as a newcomer starts it, with four simulated nodes of two models
scripted    servers in this process that answer as a test tells them
tuned       `crosslogic up --config` on the scripted nodes, with short timeouts
production  control and two gateway workers, over PostgreSQL and Redis
data_dir    of a `crosslogic up` without nodes, for the tests of one module
crosslogic  runs a command against it, as a person types it: what it printed, parsed where that is JSON, or its
            complaint where `code` is not 0
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosslogic.cli.main import run
from tests.conftest import _scratch
from tests.flow.clouds import Command, EmbeddedCloud
from tests.flow.processes import CROSSLOGIC, Program
from tests.flow.production import Production
from tests.flow.scripted import ScriptedNodes
from tests.ports import free_port

SCRIPTED_NODES = 5
TUNED = {
    "timeouts": {"connect_s": 0.5, "first_token_s": 1.0, "idle_s": 0.6, "total_s": 2.5},
    "server": {"max_body_bytes": 1_000_000, "drain_s": 5},
    "fleet": {"probe_interval_s": 1.0},
    "models": [{"id": "scripted", "context_window": 4000, "max_output_tokens": 1000, "aliases": ["also-scripted"]}],
}


def start_up(
    directory: Path,
    *options: object,
    env: Mapping[str, str] | None = None,
    command: Sequence[object] = (CROSSLOGIC,),
) -> EmbeddedCloud:
    """`crosslogic up` in a directory of its own."""
    data_dir, ready_file = directory / "data", directory / "ready.json"
    ready_file.unlink(missing_ok=True)
    arguments = ["up", "--port", free_port(), "--data-dir", data_dir, "--ready-file", ready_file]
    program = Program([*arguments, *options], directory, env, command)
    try:
        return EmbeddedCloud(program, ready_file, data_dir)
    except BaseException:  # too slow to start: what starts after it would be slower still beside it
        program.kill()
        raise


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    running = start_up(tmp_path_factory.mktemp("cloud"), "--nodes", 4)
    yield running
    running.program.kill()


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedNodes]:
    with ScriptedNodes("scripted", SCRIPTED_NODES) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedNodes) -> Iterator[EmbeddedCloud]:
    directory = tmp_path_factory.mktemp("tuned")
    config = directory / "crosslogic.yaml"
    nodes = [{"endpoint": url, "type": "vllm", "models": ["scripted"]} for url in scripted.urls]
    config.write_text(yaml.safe_dump(TUNED | {"nodes": nodes}))
    running = start_up(directory, "--config", config)
    yield running
    running.program.kill()


@pytest.fixture(scope="session")
def production(_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    for database_url in _scratch(_postgres):
        with Production(tmp_path_factory.mktemp("production"), database_url) as running:
            yield running


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    running = start_up(tmp_path_factory.mktemp("bare"), "--nodes", 0)
    yield running.data_dir
    running.program.kill()


@pytest.fixture
def crosslogic(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("CROSSLOGIC_URL", "CROSSLOGIC_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CROSSLOGIC_DATA_DIR", str(data_dir))

    def command(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        got = run(list(arguments))
        said = capsys.readouterr()
        assert got == code, said.err + said.out
        if code:
            return said.err
        return json.loads(said.out) if "--json" in arguments else said.out

    return command
