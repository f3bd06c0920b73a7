"""Nothing is started, and nothing left behind, when something that is needed is missing."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from crosslogic.cli.control import require_control
from crosslogic.cli.diagnosis import diagnose
from crosslogic.cli.gateway import require_gateway
from crosslogic.cli.main import run
from crosslogic.cli.preflight import directory_held, raise_open_files, require_directory, require_port
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings import Settings, SettingsSource, load_settings
from tests import ports


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    return ports.free_port()


@pytest.fixture
def empty_database(tmp_path: Path) -> str:
    (tmp_path / "empty.db").touch()
    return f"sqlite:///{tmp_path / 'empty.db'}"


def settings(tmp_path: Path, port: int, **environ: str) -> Settings:
    return load_settings(
        SettingsSource(
            environ={
                "CROSSLOGIC_DATA_DIR": str(tmp_path / "data"),
                "CROSSLOGIC_SERVER__HOST": "127.0.0.1",
                "CROSSLOGIC_SERVER__PORT": str(port),
                "CROSSLOGIC_CONTROL__PORT": str(port),
                **environ,
            }
        )
    )


def test_up_on_a_taken_port(tmp_path: Path, taken_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert run(["up", "--port", str(taken_port), "--data-dir", str(data)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"crosslogic: port {taken_port} on 127.0.0.1 is in use; ")
    assert "--port" in said
    assert not data.exists()


def test_up_on_a_directory_that_cannot_be_written(
    tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(["up", "--port", str(free_port), "--data-dir", str(tmp_path / "file" / "data")]) == 2
    assert "cannot be written: Not a directory; choose another with --data-dir" in capsys.readouterr().err


def test_up_beside_another_up(tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with directory_held(tmp_path):
        for _ in range(2):  # the one that was refused first has not let go of it for the other
            assert run(["up", "--port", str(free_port), "--data-dir", str(tmp_path)]) == 2
            assert "another crosslogic uses the data directory" in capsys.readouterr().err


def test_a_port_that_is_only_shared_counts_as_taken() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(ConfigurationError, match="is in use"):
            require_port("127.0.0.1", listener.getsockname()[1], setting="--port")


def test_open_files_are_raised_to_what_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        reached = raise_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == reached
        assert reached > 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1"):
        require_port("192.0.2.1", 0, setting="--port")


def test_a_data_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    require_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_gateway_without_its_database(tmp_path: Path, free_port: int) -> None:
    url = "postgresql://me:s3cr3t@127.0.0.1:1/x"
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:1/x cannot be used .*; start it, or correct") as raised:
        require_gateway(settings(tmp_path, free_port, DATABASE_URL=url), 1)
    assert "s3cr3t" not in str(raised.value)
    assert not (tmp_path / "data").exists()


def test_a_gateway_on_a_database_that_was_not_migrated(tmp_path: Path, free_port: int, empty_database: str) -> None:
    with pytest.raises(ConfigurationError, match="run `crosslogic migrate`"):
        require_gateway(settings(tmp_path, free_port, DATABASE_URL=empty_database), 1)


def test_a_gateway_without_its_redis(tmp_path: Path, free_port: int, postgres_database_url: str) -> None:
    found = settings(tmp_path, free_port, DATABASE_URL=postgres_database_url, REDIS_URL="redis://:s3cr3t@127.0.0.1:1/0")
    with pytest.raises(ConfigurationError, match=r"Redis at 127\.0\.0\.1:1/0 cannot be used .*; start it") as raised:
        require_gateway(found, 1)
    assert "s3cr3t" not in str(raised.value)


def test_several_workers_need_redis_for_their_limits(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(ConfigurationError, match=r"2 workers need Redis.*set redis\.url"):
        require_gateway(settings(tmp_path, free_port), 2)


def test_a_gateway_with_all_it_needs(
    tmp_path: Path, free_port: int, postgres_database_url: str, redis_url: str
) -> None:
    require_gateway(settings(tmp_path, free_port, DATABASE_URL=postgres_database_url, REDIS_URL=redis_url), 2)
    assert (tmp_path / "data" / "journal").is_dir()


def test_control_needs_an_admin_key(tmp_path: Path, free_port: int, postgres_database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="CROSSLOGIC_AUTH__ADMIN_KEY"):
        require_control(settings(tmp_path, free_port, DATABASE_URL=postgres_database_url))
    require_control(
        settings(tmp_path, free_port, DATABASE_URL=postgres_database_url, CROSSLOGIC_AUTH__ADMIN_KEY="a" * 32)
    )


def test_migrate_says_what_is_pending_then_applies_it_then_has_nothing_to_do(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database)
    assert run(["migrate", "--status"]) == 1
    assert "pending: " in capsys.readouterr().out
    assert run(["migrate"]) == 0
    assert "applied: " in capsys.readouterr().out
    assert run(["migrate", "--status"]) == 0
    assert capsys.readouterr().out == "the database is up to date\n"
    assert run(["migrate"]) == 0


def test_the_doctor_finds_what_is_wrong_and_changes_nothing(
    tmp_path: Path, free_port: int, empty_database: str
) -> None:
    found = settings(
        tmp_path,
        free_port,
        DATABASE_URL=empty_database,
        REDIS_URL="redis://127.0.0.1:1",
        CROSSLOGIC_NODES='[{"endpoint": "http://127.0.0.1:1"}]',
    )
    findings = {finding.subject: finding for finding in asyncio.run(diagnose(found))}
    assert {subject for subject, finding in findings.items() if finding.state == "failed"} == {
        "database",
        "Redis",
        "node 127.0.0.1:1",
    }
    assert findings["database"].advice == "run `crosslogic migrate`"
    assert all(finding.advice for finding in findings.values() if finding.state != "ok")
    assert not (tmp_path / "data").exists()


def test_the_doctor_is_content_when_all_is_well(
    tmp_path: Path, free_port: int, postgres_database_url: str, redis_url: str
) -> None:
    found = settings(tmp_path, free_port, DATABASE_URL=postgres_database_url, REDIS_URL=redis_url)
    findings = asyncio.run(diagnose(found))
    assert [finding for finding in findings if finding.state == "failed"] == []
    assert {"database", "Redis", "clock", "Python", "port"} <= {finding.subject for finding in findings}


def test_the_doctor_s_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], redis_url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_HOST", str(urlsplit(redis_url).hostname))
    monkeypatch.setenv("REDIS_PORT", str(urlsplit(redis_url).port))
    assert run(["doctor"]) == 0
    monkeypatch.setenv("REDIS_PORT", "1")
    assert run(["doctor", "--json"]) == 1
    assert '"failed"' in capsys.readouterr().out
