"""Real vLLM servers for the `engine` tier, as a pytest plugin: `make test-engine` loads it, plain `make test` does not.

Two servers of the same chat model, and one of the same weights that embeds. The first of them is also what the
contract suite (tests/contract/test_engine.py) runs against. What is started here is gone when the session ends.
"""

import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.flow.clouds import node_metric
from tests.flow.processes import eventually
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
VENV = ROOT / os.environ.get("CROSSLOGIC_ENGINE_VENV", ".venv-engine")
MODEL_DIRECTORY = VENV / "tiny-llama"
START_TIMEOUT_S = 240.0  # 30 s on an idle machine
KEY = "sk-node-of-the-tests"
CHAT_MODEL, EMBEDDING_MODEL = "tiny-llama", "tiny-embedder"
TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")


class EngineServer:
    """One vLLM server, which may be started again after its end."""

    def __init__(self, model: str, directory: Path, *options: str) -> None:
        self.model = model
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._options = options
        self._log = directory / f"{model}-{self.port}.log"
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        serve: list[str | Path] = [ROOT / "tools/engine/serve.sh", VENV, MODEL_DIRECTORY, str(self.port), self.model]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*serve, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"ENGINE_API_KEY": KEY},
                start_new_session=True,
            )

    def start_again(self) -> None:
        self.stop()
        self.process = self._start()

    def wait_until_ready(self) -> None:
        eventually(self._serves, START_TIMEOUT_S, 0.5)

    def _serves(self) -> bool:
        assert self.process.poll() is None, f"vLLM ended with {self.process.returncode}: {self.tail()}"
        try:
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def tail(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def metric(self, name: str) -> float:
        return node_metric(self.url, name)

    def post(self, path: str, body: object) -> httpx.Response:
        """A request to the engine itself, past the gateway."""
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=60, trust_env=False)

    def kill_engine(self) -> None:
        """SIGKILL the process that computes, as a GPU fault or the OOM killer would; its HTTP server lives on."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        names = {int(pid): Path(f"/proc/{pid}/comm").read_text().strip() for pid in children}
        (engine,) = (pid for pid, name in names.items() if name.startswith("VLLM::Engine"))
        os.kill(engine, signal.SIGKILL)

    def stop(self) -> None:
        """End the server and the processes that it started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


class Engines:
    """The servers of a session."""

    def __init__(self, directory: Path) -> None:
        self.chat = [EngineServer(CHAT_MODEL, directory, *TOOLS) for _ in range(2)]
        self._embedding = EngineServer(EMBEDDING_MODEL, directory, "--runner", "pooling")

    @property
    def embedding(self) -> EngineServer:
        """The one that embeds. Nothing but the tests that need it waits for it."""
        self._embedding.wait_until_ready()
        return self._embedding

    def stop(self) -> None:
        for server in (*self.chat, self._embedding):
            server.stop()


def pytest_configure() -> None:
    if not MODEL_DIRECTORY.is_dir():
        pytest.exit(f"there is no engine in {VENV}; run: make test-engine", 2)


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    running = Engines(tmp_path_factory.mktemp("engines"))
    try:
        for server in running.chat:
            server.wait_until_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session", autouse=True)
def _address_for_the_contract_suite(engines: Engines) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSLOGIC_TEST_VLLM_URL", engines.chat[0].url)
        patch.setenv("CROSSLOGIC_TEST_VLLM_API_KEY", KEY)
        yield


@pytest.fixture(autouse=True)
def _embedding_server_when_needed(
    request: pytest.FixtureRequest, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "embedding_engine" in request.fixturenames:
        monkeypatch.setenv("CROSSLOGIC_TEST_VLLM_EMBEDDING_URL", engines.embedding.url)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With real servers there, nothing may be left out: a skipped test is a failed one."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
    return report
