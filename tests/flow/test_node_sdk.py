"""The official OpenAI SDK for Node, installed from the lock file beside its script."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.flow.clouds import LLAMA, QWEN, EmbeddedCloud

FOLDER = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and its dependencies."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed: the Node SDK is not tested here")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "sdk.mjs"):
        shutil.copy(FOLDER / name, folder)
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"npm ci: {done.stderr}"
    return folder


@pytest.fixture(scope="module")
def seen(cloud: EmbeddedCloud, sdk: Path) -> Any:
    """What the SDK told its program."""
    env = os.environ | {"BASE_URL": cloud.base_url, "API_KEY": cloud.api_key, "MODEL": LLAMA}
    done = subprocess.run(
        ["node", "sdk.mjs"], cwd=sdk, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_whole_and_streamed_answers(seen: Any) -> None:
    assert seen["whole"]["text"]
    assert seen["stream"]["text"]
    assert seen["whole"]["usage"]["completion_tokens"] == seen["stream"]["usage"]["completion_tokens"] == 6


def test_responses_embeddings_and_models(seen: Any) -> None:
    assert (seen["events"][0], seen["events"][-1].rpartition(".")[2] in ("completed", "incomplete")) == (
        "response.created",
        True,
    )
    assert seen["embeddings"] == 2
    assert set(seen["models"]) == {LLAMA, QWEN}


def test_errors_are_the_sdks_own(seen: Any) -> None:
    assert seen["wrongKey"] == {"name": "AuthenticationError", "status": 401, "code": "invalid_api_key"}
    assert seen["wrongModel"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}


def test_a_cut_stream_is_an_error(seen: Any) -> None:
    assert seen["cut"] is not None
