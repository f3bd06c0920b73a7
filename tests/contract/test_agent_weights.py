"""Weights arrive whole, once, and with the right checksum, from every kind of place; disks stay within their budget."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.agent.disk import Kept, clean_up, to_remove
from crosslogic.agent.weights import SUMS_FILE, fetch_weights
from crosslogic.kernel.errors import ConfigurationError, Unavailable

FILES = {"config.json": b"{}", "model-1.safetensors": bytes(range(256)) * 4000, "sub/tokenizer.model": b"tokens"}


class FileServer:
    """Serves a folder with ranges, and remembers how much it sent; `cut_after` ends connections early."""

    def __init__(self, folder: Path) -> None:
        self.sent = 0
        self.cut_after: int | None = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                path = folder / self.path.lstrip("/")
                if not path.is_file():
                    self.send_error(404)
                    return
                data, status = path.read_bytes(), 200
                total = len(data)
                if (wanted := self.headers.get("range")) and body:
                    first, _, last = wanted.removeprefix("bytes=").partition("-")
                    begin, end = int(first), min(int(last or total - 1), total - 1)
                    data, status = data[begin : end + 1], 206
                if status == 206 and begin >= total:
                    self.send_response(416)
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                self.send_response(status)
                self.send_header("accept-ranges", "bytes")
                self.send_header("content-length", str(len(data)))
                if status == 206:
                    self.send_header("content-range", f"bytes {begin}-{end}/{total}")
                self.end_headers()
                if not body:
                    return
                if outer.cut_after is not None and len(data) > outer.cut_after:
                    data = data[: outer.cut_after]
                    self.close_connection = True
                outer.sent += len(data)
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """The test asserts; nobody reads."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in FILES.items())
    (folder / SUMS_FILE).write_text(sums)
    return folder


@pytest.fixture
def server(source: Path) -> Iterator[FileServer]:
    running = FileServer(source)
    yield running
    running.close()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_fetched_once(source: Path, tmp_path: Path) -> None:
    target = fetch_weights(str(source), tmp_path / "weights")
    assert content(target) == FILES
    before = {name: (target / name).stat().st_ino for name in FILES}
    fetch_weights(f"file://{source}", target)
    assert {name: (target / name).stat().st_ino for name in FILES} == before
    (target / "config.json").write_bytes(b"??")  # of the same size: only the checksum tells
    fetch_weights(str(source), target)
    assert content(target) == FILES


def test_http_goes_on_where_it_was_cut(server: FileServer, tmp_path: Path) -> None:
    target, large = tmp_path / "weights", FILES["model-1.safetensors"]
    target.mkdir()
    (target / "model-1.safetensors.part").write_bytes(large[:900_000])
    fetch_weights(server.url, target)
    assert content(target) == FILES
    assert server.sent < len(large) - 900_000 + 10_000


def test_a_cut_is_no_whole_file(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = 500_000
    with pytest.raises(Unavailable):
        fetch_weights(server.url, tmp_path / "weights")
    assert not (tmp_path / "weights" / "model-1.safetensors").exists()
    server.cut_after = None
    fetch_weights(server.url, tmp_path / "weights")
    assert content(tmp_path / "weights") == FILES


def test_a_wrong_checksum_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="checksum"):
        fetch_weights(str(source), tmp_path / "weights", {"config.json": "0" * 64})
    assert "config.json" not in content(tmp_path / "weights")
    assert "config.json.part" not in content(tmp_path / "weights")


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a\\b"])
def test_names_do_not_lead_out_of_the_directory(server: FileServer, source: Path, tmp_path: Path, name: str) -> None:
    (source / SUMS_FILE).write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(ConfigurationError, match="no file name"):
        fetch_weights(server.url, tmp_path / "weights")


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/x", "/nowhere/at/all", "nonsense://x"])
def test_a_place_that_is_none_is_told_without_its_credentials(place: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigurationError, Unavailable)):
        fetch_weights(place, tmp_path / "weights")


@given(
    st.lists(st.builds(Kept, st.uuids().map(str), st.integers(0, 100), st.floats(0, 100), st.booleans()), max_size=20),
    st.integers(0, 500),
)
def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(kept: list[Kept], budget: int) -> None:
    gone = set(to_remove(kept, budget))
    stays = [one for one in kept if one.name not in gone]
    assert not any(one.in_use for one in kept if one.name in gone)
    assert sum(one.size_bytes for one in stays) <= budget or all(one.in_use for one in stays)
    removable = [one for one in stays if not one.in_use]
    assert all(one.used_at_s >= other.used_at_s for one in removable for other in kept if other.name in gone)


def test_folders_are_removed_to_fit(tmp_path: Path) -> None:
    for number, name in enumerate(("old", "used", "new")):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "w"
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))
    assert clean_up(tmp_path, 250, tmp_path / "old") == ["used"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    assert clean_up(tmp_path / "absent", 0, tmp_path) == []
