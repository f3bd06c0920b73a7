"""A real etcd for the tests: one that is installed, or the one that `make test` puts into `.etcd`."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.ports import free_port

START_TIMEOUT_S = 20


def etcd_program() -> str | None:
    given = os.environ.get("CROSSLOGIC_TEST_ETCD")
    ours = Path(__file__).parent.parent / ".etcd" / "usr" / "bin" / "etcd"
    return given or shutil.which("etcd") or (str(ours) if ours.exists() else None)


@contextmanager
def etcd_server(program: str) -> Iterator[str]:
    """URL of an etcd of our own, with nothing in it."""
    url, peers = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            program,
            *("--data-dir", folder, "--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"default={peers}"),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_until_it_answers(url)
            yield url
        finally:
            process.terminate()
            process.wait(10)


def _wait_until_it_answers(url: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=1.0).json().get("health") == "true":
                return
        except (httpx.HTTPError, ValueError):
            pass
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"etcd did not answer within {START_TIMEOUT_S} s")
        time.sleep(0.05)
