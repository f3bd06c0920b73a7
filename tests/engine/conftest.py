"""Clouds over real engines. Without the plugin `tests.engine.servers` there are none, and these tests are left out.

cloud       `crosslogic up` on two servers of one model
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
import yaml

from tests.engine.servers import KEY, Engines, EngineServer
from tests.flow.clouds import EmbeddedCloud
from tests.flow.conftest import start_up

# Quicker than in production, but an engine that starves on a busy machine is not dead yet.
FLEET = {"probe_interval_s": 0.5, "heartbeat_interval_s": 2.0, "dead_after_s": 10.0}

StartCloud = Callable[..., EmbeddedCloud]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.pluginmanager.has_plugin("tests.engine.servers"):
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.skip(reason="needs real vLLM servers: make test-engine"))


@pytest.fixture(scope="session")
def start_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartCloud]:
    """Starts `crosslogic up` on some of the servers."""
    started: list[EmbeddedCloud] = []

    def start(*servers: EngineServer) -> EmbeddedCloud:
        directory = tmp_path_factory.mktemp("cloud")
        config = directory / "crosslogic.yaml"
        nodes = [{"endpoint": server.url, "api_key": KEY} for server in servers]
        config.write_text(yaml.safe_dump({"fleet": FLEET, "nodes": nodes}))
        started.append(start_up(directory, "--config", config))
        return started[-1]

    yield start
    for cloud in started:
        cloud.program.kill()


@pytest.fixture(scope="session")
def cloud(start_cloud: StartCloud, engines: Engines) -> EmbeddedCloud:
    return start_cloud(*engines.chat)


@pytest.fixture
def client(cloud: EmbeddedCloud) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=cloud.base_url, api_key=cloud.api_key, max_retries=0) as client:
        yield client
