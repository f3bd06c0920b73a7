"""`crosslogic up` as a newcomer meets it: a banner to paste from, a start that refuses in one sentence, a second start
that remembers, and an end that loses nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow import wire
from tests.flow.clouds import LLAMA, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import Program, eventually, run
from tests.ports import free_port


class TestBanner:
    @pytest.fixture
    def banner(self, cloud: EmbeddedCloud) -> str:
        return eventually(lambda: text if "Ctrl-C" in (text := cloud.program.output.read_text()) else "")

    def test_names_address_keys_and_models(self, cloud: EmbeddedCloud, banner: str) -> None:
        for fact in (cloud.base_url, cloud.api_key, cloud.ready["admin_key"], *cloud.ready["models"]):
            assert fact in banner

    def test_curl_line_streams_an_answer_when_pasted(self, banner: str) -> None:
        (line,) = [line for line in banner.splitlines() if line.startswith("curl ")]
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout.startswith("data: {")
        assert done.stdout.endswith("data: [DONE]\n\n")

    def test_python_snippet_prints_an_answer_when_pasted(self, banner: str) -> None:
        snippet = banner[banner.index("from openai") : banner.index("Ctrl-C")]
        done = subprocess.run([sys.executable], input=snippet, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()


@pytest.fixture
def brief_cloud(tmp_path: Path) -> EmbeddedCloud:
    """One for tests that end it."""
    return start_up(tmp_path, "--nodes", 1)


class TestEnd:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_a_running_stream_finishes_and_nothing_new_begins(
        self, brief_cloud: EmbeddedCloud, how: signal.Signals
    ) -> None:
        """Ctrl-C reaches the whole process group, nodes too."""
        conversation = brief_cloud.begin(chat(max_tokens=150, stream=True))
        conversation.until(lambda data: data.count(b"\n\n") > 4)
        os.killpg(brief_cloud.program.pid, how)

        def refused() -> bool:
            try:
                wire.Conversation(brief_cloud.url).close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(refused, 10)
        reply = conversation.rest()
        assert reply.done
        assert brief_cloud.program.process.wait(10) == 0
        row = brief_cloud.row(reply.headers["x-request-id"])
        assert (row["outcome"], row["completion_tokens"]) == ("completed", 150)

    def test_a_stream_that_outlasts_the_drain_is_cut_and_billed(self, tmp_path: Path) -> None:
        config = tmp_path / "crosslogic.yaml"
        config.write_text("server:\n  drain_s: 0.5\n")
        cloud = start_up(tmp_path, "--nodes", 1, "--config", config)
        conversation = cloud.begin(chat(max_tokens=5000, stream=True))
        head = conversation.until(lambda data: data.count(b"\n\n") > 4)
        assert cloud.program.stop() == 0
        reply = conversation.rest()
        assert not reply.whole
        assert head in conversation.received
        row = cloud.row(reply.headers["x-request-id"])
        assert row["outcome"] == "client_closed"
        assert row["completion_tokens"] >= reply.body.count(b'"content":') - 1

    def test_second_start_keeps_keys_and_usage(self, brief_cloud: EmbeddedCloud, tmp_path: Path) -> None:
        request_id = brief_cloud.ask(chat(max_tokens=3)).headers["x-request-id"]
        assert brief_cloud.program.stop() == 0
        again = start_up(tmp_path, "--nodes", 1)
        try:
            assert (again.api_key, again.ready["admin_key"]) == (brief_cloud.api_key, brief_cloud.ready["admin_key"])
            assert again.ask(chat(max_tokens=3)).status == 200
            assert again.row(request_id)["completion_tokens"] == 3
        finally:
            again.program.kill()

    def test_nothing_outlives_a_kill(self, brief_cloud: EmbeddedCloud) -> None:
        nodes = brief_cloud.program.children()
        assert nodes
        brief_cloud.program.kill()
        eventually(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and _alive(pid) for pid in nodes), 5)

    def test_ready_file_and_credentials_are_private(self, cloud: EmbeddedCloud) -> None:
        ready_file = cloud.data_dir.parent / "ready.json"
        for path in (ready_file, cloud.data_dir / "credentials.json"):
            assert path.stat().st_mode & 0o077 == 0


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


class TestRefusedStart:
    """One sentence on standard error that says what to do, exit code 2, nothing half-started."""

    def _refused(self, *arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
        done = run(*arguments, env=env, cwd=cwd)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stdout == ""
        assert done.stderr.startswith("crosslogic: ")
        assert "Traceback" not in done.stderr
        return done.stderr

    def test_port_in_use(self, cloud: EmbeddedCloud, tmp_path: Path) -> None:
        port = cloud.url.rpartition(":")[2]
        said = self._refused("up", "--port", port, "--data-dir", tmp_path / "new")
        assert f"port {port} on 127.0.0.1 is in use" in said
        assert "--port" in said
        assert not (tmp_path / "new").exists()

    def test_data_directory_of_a_running_cloud(self, cloud: EmbeddedCloud) -> None:
        said = self._refused("up", "--port", free_port(), "--data-dir", cloud.data_dir)
        assert "another crosslogic uses the data directory" in said
        assert cloud.ask(chat(max_tokens=1)).status == 200

    def test_unwritable_data_directory(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        assert "--data-dir" in self._refused("up", "--port", free_port(), "--data-dir", file / "data")

    def test_ready_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        place = tmp_path / "missing" / "ready.json"
        said = self._refused("up", "--port", free_port(), "--data-dir", tmp_path / "data", "--ready-file", place)
        assert "--ready-file" in said
        assert list(tmp_path.iterdir()) == []

    def test_bad_yaml(self, tmp_path: Path) -> None:
        config = tmp_path / "crosslogic.yaml"
        config.write_text("server:\n  prot: 80\n")
        said = self._refused("up", "--port", free_port(), "--config", config, cwd=tmp_path)
        assert "server.prot" in said
        assert list(tmp_path.iterdir()) == [config]

    def test_missing_redis(self, tmp_path: Path, sqlite_url: str) -> None:
        env = {"CROSSLOGIC_DATABASE__URL": sqlite_url, "SERVER_PORT": str(free_port()), "REDIS_HOST": "127.0.0.1"}
        said = self._refused("gateway", env=env | {"REDIS_PORT": str(free_port())}, cwd=tmp_path)
        assert "Redis" in said
        assert "redis.url" in said

    @pytest.mark.parametrize("section", ["redis", "database"])
    def test_configured_server_that_is_away(self, tmp_path: Path, section: str) -> None:
        scheme = "redis" if section == "redis" else "postgresql"
        config = tmp_path / "crosslogic.yaml"
        config.write_text(f"{section}:\n  url: {scheme}://127.0.0.1:{free_port()}/0\n")
        said = self._refused("up", "--port", free_port(), "--data-dir", tmp_path / "data", "--config", config)
        assert f"{section}.url" in said
        assert not (tmp_path / "data").exists()

    def test_missing_database(self, tmp_path: Path) -> None:
        url = f"postgresql://nobody:hunter2@127.0.0.1:{free_port()}/nothing"
        env = {"CROSSLOGIC_DATABASE__URL": url, "CROSSLOGIC_AUTH__ADMIN_KEY": "x" * 32}
        said = self._refused("gateway", env=env | {"SERVER_PORT": str(free_port())}, cwd=tmp_path)
        assert "hunter2" not in said
        assert "database.url" in said

    def test_database_without_the_tables(self, tmp_path: Path) -> None:
        env = {"CROSSLOGIC_DATABASE__URL": f"sqlite:///{tmp_path}/empty.db", "SERVER_PORT": str(free_port())}
        assert "crosslogic migrate" in self._refused("gateway", env=env, cwd=tmp_path)

    def test_an_attached_server_that_is_away_is_no_reason(self, tmp_path: Path) -> None:
        """It may be started later; the cloud is up without it, and serves it when it comes."""
        port = free_port()
        cloud = start_up(tmp_path, "--node", f"http://127.0.0.1:{port}")
        node = None
        try:
            assert cloud.ready["models"] == []
            assert cloud.ask(chat()).status == 404
            node = Program(["simulate", "--port", port, "--model", LLAMA, "--speedup", 100], tmp_path)
            eventually(lambda: cloud.ask(path="/v1/models", method="GET").json["data"], 10)
            assert cloud.ask(chat(max_tokens=2)).status == 200
        finally:
            cloud.program.kill()
            if node is not None:
                node.kill()
