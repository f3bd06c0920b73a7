"""The admin commands against a running cloud, as a person types them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crosslogic.cli.main import run
from tests.ports import free_port

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a running `crosslogic up` without nodes."""
    directory = tmp_path_factory.mktemp("cloud")
    ready = directory / "ready.json"
    arguments = [
        "up",
        "--port",
        str(free_port()),
        "--data-dir",
        str(directory),
        "--nodes",
        "0",
        "--ready-file",
        str(ready),
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CROSSLOGIC_")}
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "crosslogic.cli", *arguments], stdout=output, stderr=output, env=environ
        )
    deadline_s = time.monotonic() + 60
    while not ready.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.05)
    yield directory
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


@pytest.fixture
def crosslogic(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command and return what it printed, parsed when it printed JSON."""
    for name in ("CROSSLOGIC_URL", "CROSSLOGIC_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CROSSLOGIC_DATA_DIR", str(data_dir))

    def command(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        got = run(list(arguments))
        said = capsys.readouterr()
        assert got == code, said.err
        if code:
            return said.err
        return json.loads(said.out) if "--json" in arguments else said.out

    return command


def test_an_organisation_gets_environments_and_a_key_that_is_shown_once(crosslogic: Command) -> None:
    org = crosslogic("orgs", "create", "acme", "--plan", "pro", "--concurrency", "5", "--json")
    assert [env["name"] for env in org["environments"]] == ["dev", "staging", "prod"]
    assert org["limits"]["concurrency"] == 5
    token = crosslogic("keys", "create", "ci", "--org", "acme", "--env", "prod", "--expires", "90d").strip()
    assert token.startswith("clsk_live_")
    listed = crosslogic("keys", "list", "--org", "acme")
    assert token not in listed
    assert token[:16] in listed
    (row,) = crosslogic("keys", "list", "--org", "acme", "--json")
    assert crosslogic("keys", "revoke", row["id"]) == f"{row['id']} is revoked\n"
    assert crosslogic("keys", "list", "--org", "acme", "--status", "active", "--json") == []
    assert "acme" in crosslogic("orgs", "list")


def test_what_the_api_refuses_is_one_sentence(crosslogic: Command) -> None:
    crosslogic("orgs", "create", "twice")
    assert crosslogic("orgs", "create", "twice", code=1).startswith("crosslogic: ")
    assert crosslogic("usage", "nobody", code=1).startswith("crosslogic: ")
    assert crosslogic("keys", "create", "x", "--role", "king", code=1).startswith("crosslogic: role: ")
    assert "admin key is not valid" in crosslogic("orgs", "list", "--admin-key", "wrong", code=1)


def test_a_node_is_registered_listed_and_drained(crosslogic: Command) -> None:
    assert crosslogic("nodes", "register", "http://127.0.0.1:9", "--model", "m", "--id", "n9", "--engine", "vllm")
    (row,) = crosslogic("nodes", "list", "--json")
    assert (row["node_id"], row["backend"], row["model_list"]) == ("n9", "vllm", ["m"])
    assert crosslogic("nodes", "drain", "n9") == "n9 is draining\n"
    assert "n9" in crosslogic("nodes", "list", "--status", "draining")


def test_usage_of_an_organisation_that_used_nothing(crosslogic: Command) -> None:
    totals = crosslogic("usage", "default", "--group-by", "model,day", "--json")["totals"]
    assert totals["requests"] == 0
    assert crosslogic("usage", "default", "--group-by", "model") == "nothing was used\n"


def test_lists_are_read_to_their_end(crosslogic: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosslogic.cli.client.PAGE_ROWS", 2)
    names = {f"page-{number}" for number in range(5)}
    for name in names:
        crosslogic("orgs", "create", name, "--env", "dev")
    assert names <= {row["name"] for row in crosslogic("orgs", "list", "--json")}
