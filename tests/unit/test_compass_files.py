"""Result files of load generators: what is taken of them, and what is left out and why."""

import msgspec
import pytest

from crosslogic.compass.knowledge.files import Tool, read_file
from crosslogic.compass.knowledge.model import Setup, measured_row
from crosslogic.kernel.errors import InvalidRequest

SETUP = Setup("meta-llama/Llama-3.1-8B-Instruct", "h100_sxm")


def guidellm(rate: float, achieved: float, ttft: float = 45.0, errored: int = 0) -> dict[str, object]:
    def spread(value: float) -> dict[str, object]:
        return {"successful": {"mean": value, "percentiles": {"p95": value * 1.5}}, "errored": {"mean": 1.0}}

    return {
        "config": {"strategy": {"type_": "constant", "rate": rate}},
        "start_time": 1764000000.0,
        "metrics": {
            "request_totals": {"successful": 100, "errored": errored, "incomplete": 2, "total": 102 + errored},
            "requests_per_second": spread(achieved),
            "request_concurrency": spread(8.0),
            "request_latency": spread(2.5),
            "prompt_token_count": spread(512.0),
            "output_token_count": spread(256.0),
            "time_to_first_token_ms": spread(ttft),
            "inter_token_latency_ms": spread(9.6),
        },
    }


VLLM = {
    "date": "20260401-101112",
    "backend": "vllm",
    "model_id": "meta-llama/Llama-3.1-8B-Instruct",
    "num_prompts": 200,
    "request_rate": "inf",
    "max_concurrency": 16,
    "completed": 200,
    "total_input_tokens": 102_400,
    "total_output_tokens": 51_200,
    "request_throughput": 6.1,
    "mean_ttft_ms": 80.0,
    "p95_ttft_ms": 140.0,
    "mean_tpot_ms": 9.9,
    "p95_tpot_ms": 11.0,
    "mean_e2el_ms": 2604.0,
}
AIPERF = {
    "request_throughput": {"unit": "requests/sec", "avg": 4.0},
    "request_latency": {"unit": "ms", "avg": 2500.0, "p95": 2900.0},
    "request_count": {"unit": "requests", "avg": 64.0},
    "time_to_first_token": {"unit": "ms", "avg": 60.0, "p95": 90.0},
    "inter_token_latency": {"unit": "ms", "avg": 9.5, "p95": 10.5},
    "input_sequence_length": {"unit": "tokens", "avg": 512.2},
    "output_sequence_length": {"unit": "tokens", "avg": 255.8},
    "input_config": {"loadgen": {"concurrency": 10}},
}


def test_guidellm_gives_successful_requests_only_and_drops_saturated_points() -> None:
    points = [guidellm(3, 3.0), guidellm(50, 20.0), guidellm(3, 3.0, ttft=-4.0), guidellm(3, 3.0, errored=40)]
    read = read_file(msgspec.json.encode({"benchmarks": points}), SETUP)
    assert read.tool is Tool.GUIDELLM
    (point,) = read.benchmarks
    assert (point.prompt_tokens, point.output_tokens, point.requests) == (512, 256, 100)
    assert (point.ttft_p95_ms, point.itl_mean_ms, point.e2e_p95_ms) == (67.5, 9.6, 3750.0)
    assert point.offered_per_second == 3
    reasons = {each.point: each.reason for each in read.left_out}
    assert reasons[2] == "over-saturated: 20 of 50 requests/s were served"
    assert "ttft" in reasons[3]
    assert reasons[4] == "40 of 140 requests failed"


def test_vllm_bench_and_aiperf_are_read_and_teach_the_step_time_model() -> None:
    read = read_file(msgspec.json.encode(VLLM), SETUP, profile=(512, 256))
    (point,) = read.benchmarks
    assert (point.concurrency, point.offered_per_second, point.ttft_p95_ms) == (16, None, 140.0)
    row = measured_row(point)
    assert row is not None
    assert (row.load.running, row.load.prompt_tokens, row.itl_s) == (16, 512, 0.0099)
    lines = msgspec.json.encode(VLLM) + b"\n" + msgspec.json.encode({**VLLM, "max_concurrency": 32})
    assert len(read_file(lines, SETUP).benchmarks) == 2
    (other,) = read_file(msgspec.json.encode(AIPERF), SETUP).benchmarks
    assert (other.prompt_tokens, other.output_tokens, other.concurrency, other.e2e_p95_ms) == (512, 256, 10, 2900.0)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{}", b'{"benchmarks": []}', b"null", b"[" * 5000, b"1"])
def test_what_is_no_result_file_is_refused_in_a_sentence(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_file(content, SETUP)
