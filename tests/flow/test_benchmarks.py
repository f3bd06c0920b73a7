"""A running server is measured over the wire, and what was measured is kept and listed, all from the shell."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.flow.clouds import Command
from tests.flow.processes import Program
from tests.ports import free_port

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A simulated vLLM at a twentieth of its hardware's latency."""
    port = free_port()
    program = Program(["simulate", "--port", port, "--model", MODEL, "--speedup", 20], tmp_path)

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    program.wait_for(ready)
    yield f"http://127.0.0.1:{port}"
    program.kill()


def test_a_server_is_measured_and_kept_with_exact_traffic(crosslogic: Command, server: str) -> None:
    asked = ("benchmarks", "run", "--target", server, "--model", MODEL, "--gpu", "H100", "--seconds", "3")
    lengths = ("--prompt-tokens", "64", "--output-tokens", "16", "--timeout", "60")
    found = crosslogic(*asked, *lengths, "--rates", "2,4", "--json")
    assert found["added"] == len(found["benchmarks"]) >= 1
    point = found["benchmarks"][0]
    assert (point["prompt_tokens"], point["output_tokens"], point["failed"]) == (64, 16, 0)
    assert point["mean_output_tokens"] == 16
    assert 0 < point["ttft_mean_ms"] <= point["ttft_p95_ms"] < point["e2e_p95_ms"]
    assert point["requests"] >= 5
    listed = crosslogic("benchmarks", "list", "--gpu", "h100", "--json")
    assert pytest.approx(point["ttft_p95_ms"]) in [row["ttft_p95_ms"] for row in listed]
    assert "serves no model 'absent'" in crosslogic(
        "benchmarks", "run", "--target", server, "--model", "absent", "--gpu", "H100", code=1
    )
    nowhere = f"http://127.0.0.1:{free_port()}"
    refused = crosslogic("benchmarks", "run", "--target", nowhere, "--model", MODEL, "--gpu", "H100", code=1)
    assert "nothing answers at" in refused


def test_a_result_file_is_imported_once(crosslogic: Command, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    result = {"model_id": MODEL, "completed": 100, "num_prompts": 100, "request_throughput": 5.0, "max_concurrency": 8}
    result |= {"total_input_tokens": 51200, "total_output_tokens": 25600, "mean_ttft_ms": 50.0, "mean_tpot_ms": 9.0}
    file.write_text(json.dumps(result))
    assert "1 of 1 points of vllm added" in crosslogic("benchmarks", "import", str(file), "--gpu", "A100")
    assert "0 of 1 points of vllm added" in crosslogic("benchmarks", "import", str(file), "--gpu", "A100")
    assert "there is no GPU" in crosslogic("benchmarks", "import", str(file), "--gpu", "abacus", code=2)
    assert "512 -> 256" in crosslogic("benchmarks", "list", "--model", MODEL)
