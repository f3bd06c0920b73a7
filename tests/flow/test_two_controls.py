"""Two control processes on one database: one leads, and when it dies the other follows within ten seconds."""

import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flow.processes import START_TIMEOUT_S, Program, eventually, run
from tests.ports import free_port

TAKEOVER_S = 10.0


class Controls:
    def __init__(self, directory: Path, database_url: str) -> None:
        self._admin_key = secrets.token_urlsafe(32)
        self.ports = [free_port(), free_port()]
        self.env = {"CROSSLOGIC_AUTH__ADMIN_KEY": self._admin_key, "CROSSLOGIC_DATABASE__URL": database_url}
        self.env["CROSSLOGIC_DATA_DIR"] = str(directory / "data")
        migrated = run("migrate", env=self.env)
        assert migrated.returncode == 0, migrated.stderr
        self.programs = [
            Program(["control"], directory / str(port), self.env | {"CROSSLOGIC_CONTROL__PORT": str(port)})
            for port in self.ports
        ]

    def cluster(self, port: int) -> dict[str, Any]:
        """What this process says of all; empty while it does not answer."""
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{port}/admin/cluster",
                headers={"authorization": f"Bearer {self._admin_key}"},
                trust_env=False,
                timeout=5,
            )
        except httpx.HTTPError:
            return {}
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def leader_port(self, asked: int) -> int | None:
        leading = [process for process in self.cluster(asked).get("processes", ()) if process["leads"]]
        return int(leading[0]["address"].rsplit(":", 1)[1]) if leading else None

    def agreed_leader(self) -> int | None:
        """The leader's port, once both answer and name the same: each says that it lives before it listens."""
        named = {self.leader_port(port) for port in self.ports}
        return named.pop() if len(named) == 1 else None


@pytest.fixture
def controls(tmp_path: Path, postgres_database_url: str) -> Iterator[Controls]:
    started = Controls(tmp_path, postgres_database_url)
    yield started
    for program in started.programs:
        program.kill()


def test_when_the_leader_is_killed_the_other_leads_within_ten_seconds(controls: Controls) -> None:
    first, second = controls.ports
    eventually(lambda: len(controls.cluster(first).get("processes", ())) == 2, START_TIMEOUT_S)
    leader = eventually(controls.agreed_leader, START_TIMEOUT_S)
    follower = second if leader == first else first

    controls.programs[controls.ports.index(leader)].kill()
    killed_s = time.monotonic()
    eventually(lambda: controls.leader_port(follower) == follower, 3 * TAKEOVER_S)
    assert time.monotonic() - killed_s < 2 * TAKEOVER_S  # a busy machine adds to it
    eventually(lambda: len(controls.cluster(follower).get("processes", ())) == 1, 20)

    shown = run(
        "cluster", "--url", f"http://127.0.0.1:{follower}", "--admin-key", controls._admin_key, env=controls.env
    )
    assert shown.returncode == 0, shown.stderr
    assert f"127.0.0.1:{follower}" in shown.stdout
    assert "yes" in shown.stdout
    assert "available_gpus" in shown.stdout
    assert eventually(lambda: controls.cluster(follower).get("nodes"))["total_nodes"] == 0


def test_a_leader_that_is_stopped_hands_over_at_once(controls: Controls) -> None:
    first, second = controls.ports
    leader = eventually(controls.agreed_leader, START_TIMEOUT_S)
    follower = second if leader == first else first
    assert controls.programs[controls.ports.index(leader)].stop(signal.SIGTERM) == 0
    eventually(lambda: controls.leader_port(follower) == follower, TAKEOVER_S / 2)
