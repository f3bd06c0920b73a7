"""The clouds that flow tests share. Starting one takes seconds, so each serves many tests, which leave it as it was.

cloud       `crosslogic up` as a newcomer starts it, with four simulated nodes of two models
scripted    servers in this process that answer as a test tells them
tuned       `crosslogic up --config` on the scripted nodes, with short timeouts
production  control and two gateway workers, over PostgreSQL and Redis
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.conftest import _scratch
from tests.flow.clouds import EmbeddedCloud
from tests.flow.processes import Program
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


def start_up(directory: Path, *options: object, env: Mapping[str, str] | None = None) -> EmbeddedCloud:
    """`crosslogic up` in a directory of its own."""
    data_dir, ready_file = directory / "data", directory / "ready.json"
    ready_file.unlink(missing_ok=True)
    arguments = ["up", "--port", free_port(), "--data-dir", data_dir, "--ready-file", ready_file]
    return EmbeddedCloud(Program([*arguments, *options], directory, env), ready_file, data_dir)


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
