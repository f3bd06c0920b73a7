"""The command line: exit codes, one sentence for each foreseen failure, and help that costs nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crosslogic.cli.main import PLACES, run
from tests.unit.settings_files import write


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("CROSSLOGIC_", "DB_", "REDIS_", "SERVER_", "DATABASE_")):
            monkeypatch.delenv(name)


def test_help_imports_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys\n"
        "from crosslogic.cli.main import run\n"
        "assert run(['--help']) == 0\n"
        "heavy = {'pydantic', 'sqlalchemy', 'fastapi', 'httpx', 'asyncio', 'yaml', 'redis', 'crosslogic.wiring'}\n"
        "found = heavy & sys.modules.keys()\n"
        "sys.exit(str(found) if found else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    for name in PLACES:
        assert name in done.stdout


@pytest.mark.parametrize("name", PLACES)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"Usage: crosslogic {name}" in capsys.readouterr().out


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Usage: crosslogic" in capsys.readouterr().out


def test_a_misspelt_command_or_option_is_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["kyes"]) == 2
    assert "Did you mean 'keys'?" in capsys.readouterr().err
    assert run(["up", "--prot", "1"]) == 2


def test_a_wrong_configuration_is_one_sentence_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path, "server: {prot: 1}")
    for command in (["up"], ["gateway"], ["control"], ["migrate"], ["doctor"]):
        assert run([*command, "--config", str(config)]) == 2
        said = capsys.readouterr()
        assert said.err == f"crosslogic: {config}: server.prot is no setting; did you mean server.port?\n"
        assert said.out == ""
    assert not (tmp_path / ".crosslogic").exists()


def test_interruption_is_code_130(tmp_path: Path) -> None:
    # reading a pipe that nobody writes to stands for any command that takes its time
    pipe = tmp_path / "config.yaml"
    os.mkfifo(pipe)
    program = "import sys; print('ready', flush=True); from crosslogic.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "config", "check", "--config", str(pipe)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        writer = os.open(pipe, os.O_WRONLY)  # returns once the command has begun to read
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        os.close(writer)


def test_config_check_tells_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path, "server: {port: -1}\nbanana: 1")
    assert run(["config", "check", "--config", str(config)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert run(["config", "check", "--config", str(config), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["mistakes"]) == 2


def test_config_check_finds_what_would_stop_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seller = "{legal_name: Acme, country: IN, state: KA, gstin: 29ABCDE1234F1Z5}"
    wrong = f"billing: {{invoices: {{seller: {seller}}}}}\ndistributed: {{coordinator_type: etcd}}"
    assert run(["config", "check", "--config", str(write(tmp_path, wrong))]) == 2
    said = capsys.readouterr().err
    assert "gstin is no valid GSTIN" in said
    assert "there are no distributed.etcd_endpoints" in said
    keyless = write(tmp_path, "enable_payments: true\npayments: {provider: stripe}")
    assert run(["config", "check", "--config", str(keyless)]) == 0  # the key may be on control's machine alone
    assert "warning: control does not start yet: payments.provider: stripe needs" in capsys.readouterr().err


def test_config_check_warns_and_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSLOGIC_CONFIG", str(write(tmp_path, "enable_distributed: true\nauth: {admin_key: s3cr3t}")))
    assert run(["config", "check"]) == 0
    said = capsys.readouterr()
    assert "warning: enable_distributed: true has no effect in this version" in said.err
    assert said.out.endswith("config.yaml: valid\n")
    assert run(["config", "check", "--show"]) == 0
    shown = capsys.readouterr().out
    assert "admin_key: '***'" in shown
    assert "s3cr3t" not in shown
    assert run(["config", "check", "--show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["auth"]["admin_key"] == "***"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"crosslogic", "python"}


def test_admin_commands_say_where_a_cloud_could_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "list"]) == 2
    assert "start `crosslogic up` here, or set CROSSLOGIC_URL" in capsys.readouterr().err
    assert run(["keys", "list", "--url", "http://127.0.0.1:1"]) == 2
    assert "set CROSSLOGIC_ADMIN_KEY" in capsys.readouterr().err
    assert run(["keys", "list", "--url", "http://127.0.0.1:1", "--admin-key", "k"]) == 1
    assert "nothing answers at http://127.0.0.1:1" in capsys.readouterr().err
    assert run(["keys", "list", "--url", "nonsense", "--admin-key", "k"]) == 2
    assert "write --url http://host:port" in capsys.readouterr().err


def test_credentials_that_others_can_read_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    credentials = tmp_path / "credentials.json"
    credentials.write_text('{"base_url": "http://127.0.0.1:1", "admin_key": "k"}', "utf-8")
    credentials.chmod(0o644)
    assert run(["nodes", "list", "--data-dir", str(tmp_path)]) == 2
    assert f"chmod 600 {credentials}" in capsys.readouterr().err


def test_a_local_admin_key_is_not_sent_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    credentials = tmp_path / "credentials.json"
    credentials.write_text('{"base_url": "http://127.0.0.1:1", "admin_key": "k"}', "utf-8")
    credentials.chmod(0o600)
    assert run(["nodes", "list", "--data-dir", str(tmp_path), "--url", "http://127.0.0.1:2"]) == 2
    assert "the admin key is missing" in capsys.readouterr().err
