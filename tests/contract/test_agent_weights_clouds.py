"""Weights come from S3, Google Cloud Storage and Azure as an agent with the extras fetches them (`make test-clouds`).

The servers speak as those do: moto, gcp-storage-emulator and Azurite, each a process of its own.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
HERE = ROOT / ".venv-clouds"
PYTHON = HERE / "bin" / "python"
AZURITE = HERE / "node_modules" / ".bin" / "azurite-blob"
FILES = {"config.json": b"{}", "model-1.safetensors": bytes(range(256)) * 40_000, "sub/tokenizer.model": b"tokens"}
BUCKET = "weights"
ACCOUNT, KEY = "devstoreaccount1", base64.b64encode(b"a key for tests, of whatever length it likes").decode()
FETCH = """
import json, sys
from pathlib import Path
from crosslogic.agent.weights import fetch_weights
from crosslogic.kernel.errors import ConfigurationError, Unavailable
try:
    fetch_weights(sys.argv[1], Path(sys.argv[2]))
    said = "fetched"
except (ConfigurationError, Unavailable) as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""
PUT = """
import sys
from pathlib import Path
import fsspec
system, root = fsspec.core.url_to_fs(sys.argv[1])
if not system.exists(root.split("/")[0]):
    system.mkdir(root.split("/")[0])
for path in sorted(Path(sys.argv[2]).rglob("*")):
    if path.is_file():
        system.pipe_file(f"{root}/{path.relative_to(sys.argv[2])}", path.read_bytes())
"""


class Cloud:
    """Where the weights are, and what an agent's environment says of it."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        self.url = url
        self._environment = {**_plain_environment(), "PYTHONPATH": str(ROOT / "src"), **environment}

    def run(self, program: str, *arguments: object) -> str:
        command = [str(PYTHON), "-c", program, *map(str, arguments)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def fetch(self, target: Path, url: str | None = None) -> str:
        said: str = json.loads(self.run(FETCH, url or self.url, target).splitlines()[-1])
        return said


def _plain_environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: value for name, value in os.environ.items() if name in kept}


@contextmanager
def serving(command: list[object], url: str, folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        list(map(str, command)), cwd=folder, env={**_plain_environment(), **environment}, stdout=log, stderr=log
    )
    try:
        deadline_s = time.monotonic() + 60
        while True:
            try:
                httpx.get(url, timeout=1.0, trust_env=False)
                break
            except httpx.HTTPError:
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < deadline_s, (folder / "server.log").read_text()
                time.sleep(0.1)
        yield
    finally:
        process.kill()  # Azurite waits for idle connections to end
        process.wait(10)
        log.close()


@contextmanager
def s3(folder: Path) -> Iterator[Cloud]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving([PYTHON, "-m", "moto.server", "-H", "127.0.0.1", "-p", port], url, folder, {}):
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        yield Cloud(f"s3://{BUCKET}/llama", keys | {"AWS_ENDPOINT_URL": url})


@contextmanager
def gcs(folder: Path) -> Iterator[Cloud]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [HERE / "bin" / "gcp-storage-emulator", "start", "--host", "127.0.0.1", "--port", port, "--in-memory"]
    with serving([*command, "--default-bucket", BUCKET], url, folder, {}):
        # Else it asks for a minute, over gRPC, what kind of bucket this is, which the emulator does not speak.
        plain = {"FSSPEC_GS_TOKEN": "anon", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        yield Cloud(f"gs://{BUCKET}/llama", {"STORAGE_EMULATOR_HOST": url, **plain})


@contextmanager
def azure(folder: Path) -> Iterator[Cloud]:
    if not AZURITE.exists() or shutil.which("node") is None:
        pytest.skip("Azurite is not there")
    port = free_port()
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    command = [AZURITE, "--blobHost", "127.0.0.1", "--blobPort", port, "--location", folder, "--skipApiVersionCheck"]
    with serving([*command, "--silent"], url, folder, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}):
        connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url};"
        yield Cloud(f"az://{BUCKET}/llama", {"AZURE_STORAGE_CONNECTION_STRING": connection})


@pytest.fixture(params=[s3, gcs, azure], ids=["s3", "gcs", "azure"], scope="module")
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """With the weights in it."""
    if not PYTHON.exists():
        pytest.skip("the clouds' file systems are not installed: make test-clouds")
    folder, source = tmp_path_factory.mktemp("cloud"), tmp_path_factory.mktemp("source")
    for name, data in FILES.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(data)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in FILES.items())
    (source / "SHA256SUMS").write_text(sums)
    with request.param(folder) as running:
        running.run(PUT, running.url, source)
        yield running


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_files_arrive_once(cloud: Cloud, tmp_path: Path) -> None:
    target = tmp_path / "weights"
    assert cloud.fetch(target) == "fetched"
    assert content(target) == FILES
    before = {name: (target / name).stat().st_ino for name in FILES}
    assert cloud.fetch(target) == "fetched"
    assert {name: (target / name).stat().st_ino for name in FILES} == before


def test_an_interrupted_fetch_goes_on_and_a_wrong_beginning_is_found_out(cloud: Cloud, tmp_path: Path) -> None:
    target, large = tmp_path / "weights", FILES["model-1.safetensors"]
    target.mkdir()
    part = target / "model-1.safetensors.part"
    part.write_bytes(large[:9_000_000])
    assert cloud.fetch(target) == "fetched"
    assert content(target) == FILES
    (target / "model-1.safetensors").unlink()
    part.write_bytes(b"?" * 9_000_000)
    assert "checksum" in cloud.fetch(target)
    assert cloud.fetch(target) == "fetched"
    assert content(target) == FILES


@pytest.mark.parametrize("missing", ["nothing-here", "../another-bucket/llama"])
def test_what_is_not_there_is_told_as_a_mistake(cloud: Cloud, tmp_path: Path, missing: str) -> None:
    scheme, _, _ = cloud.url.partition("://")
    place: Any = f"{scheme}://{BUCKET}/{missing}" if ".." not in missing else f"{scheme}://another-bucket/llama"
    assert cloud.fetch(tmp_path / "weights", place).startswith("ConfigurationError")
