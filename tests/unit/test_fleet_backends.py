"""Reading engines: load from their metrics, names from their model lists, their kind from what only they say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.fleet.backends.answers import MAX_MODELS, read_load, read_models, samples
from crosslogic.fleet.backends.detect import Detected, recognise
from crosslogic.fleet.backends.known import BACKENDS, backend_of
from crosslogic.fleet.fetch import Answer
from crosslogic.fleet.model import BackendKind, NodeLoad

VLLM_METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {b} c"} 3.0
vllm:num_requests_running{engine="1",model_name="a {b} c"} 4.0
vllm:num_requests_waiting{engine="0",model_name="a {b} c"} 2.0
vllm:num_requests_waiting{engine="1",model_name="a {b} c"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="a {b} c"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a {b} c"} 0.75
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="a {b} c"} 9.0
"""
SGLANG_METRICS = """\
sglang:num_running_reqs{model_name="m",tp_rank="0"} 5.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 1.0
sglang:token_usage{model_name="m",tp_rank="0"} 0.28
sglang:gen_throughput{model_name="m",tp_rank="0"} 86.5 1700000000000
"""
LLAMACPP_METRICS = """\
llamacpp:requests_processing 2
llamacpp:requests_deferred 46
llamacpp:predicted_tokens_seconds 128.5
"""


@pytest.mark.parametrize(
    ("kind", "text", "load"),
    [
        (BackendKind.VLLM, VLLM_METRICS, NodeLoad(7, 2, None, 0.75, None)),
        (BackendKind.VLLM, VLLM_METRICS.replace("kv_cache_usage", "gpu_cache_usage"), NodeLoad(7, 2, None, 0.75, None)),
        (BackendKind.SGLANG, SGLANG_METRICS, NodeLoad(5, 1, None, 0.28, 86.5)),
        (BackendKind.LLAMACPP, LLAMACPP_METRICS, NodeLoad(2, 46, None, None, 128.5)),
        (BackendKind.OLLAMA, VLLM_METRICS, NodeLoad()),
        (BackendKind.OPENAI, VLLM_METRICS, NodeLoad()),
        (BackendKind.VLLM, "", NodeLoad()),
    ],
)
def test_each_engines_metrics_become_the_same_load(kind: BackendKind, text: str, load: NodeLoad) -> None:
    assert read_load(backend_of(kind), text) == load


def test_lying_metrics_stay_in_bounds() -> None:
    text = "\n".join(
        [
            "vllm:num_requests_running -5",
            "vllm:num_requests_waiting 1e300",
            "vllm:kv_cache_usage_perc 17",
            "vllm:num_requests_running NaN",
            "vllm:num_requests_waiting",
            "vllm:num_requests_waiting{ 3",
        ]
    )
    load = read_load(backend_of(BackendKind.VLLM), text)
    assert (load.requests_running, load.kv_cache_used_ratio) == (0, 1.0)
    assert load.requests_waiting == 10**12


@given(st.text(max_size=300))
def test_no_text_can_raise(text: str) -> None:
    for values in samples(text).values():
        assert values
    for backend in BACKENDS.values():
        assert read_load(backend, text).requests_running >= 0


@given(st.binary(max_size=200))
def test_no_model_list_can_raise(body: bytes) -> None:
    assert read_models(body) is None or isinstance(read_models(body), tuple)


def test_model_lists() -> None:
    assert read_models(b'{"object":"list","data":[{"id":"b"},{"id":"a","x":1},{"id":"a"},{"id":""}]}') == ("a", "b")
    assert read_models(b'{"data":[]}') == ()
    assert read_models(b'{"data":[{"name":"a"}]}') is None
    assert read_models(b"<html>") is None
    assert read_models(b'{"data":[{"id":"%s"}]}' % (b"x" * 300)) == ()
    assert read_models(b"[" * 100_000) is None
    many = b",".join(b'{"id":"m%d"}' % index for index in range(MAX_MODELS + 5))
    assert len(read_models(b'{"data":[' + many + b"]}") or ()) == MAX_MODELS


def ok(body: str) -> Answer:
    return Answer(200, body.encode(), {})


def models(owner: str) -> Answer:
    return ok(json.dumps({"data": [{"id": "m", "owned_by": owner}]}))


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"/": ok("Ollama is running"), "/v1/models": models("library")}, BackendKind.OLLAMA),
        ({"/metrics": ok(VLLM_METRICS), "/v1/models": models("vllm")}, BackendKind.VLLM),
        ({"/metrics": ok(VLLM_METRICS), "/server_info": ok("{}"), "/v1/models": models("me")}, BackendKind.VLLM),
        ({"/v1/models": models("vllm")}, BackendKind.VLLM),
        ({"/metrics": ok(SGLANG_METRICS), "/v1/models": models("me")}, BackendKind.SGLANG),
        ({"/get_server_info": ok('{"mem_fraction_static":0.9}'), "/v1/models": models("me")}, BackendKind.SGLANG),
        ({"/metrics": Answer(501, b"", {}), "/v1/models": models("llamacpp")}, BackendKind.LLAMACPP),
        ({"/props": ok('{"default_generation_settings":{}}'), "/v1/models": models("me")}, BackendKind.LLAMACPP),
        ({"/metrics": ok("python_info 1\n"), "/v1/models": models("system")}, BackendKind.OPENAI),
        ({"/": Answer(404, b"Ollama is running", {}), "/v1/models": models("system")}, BackendKind.OPENAI),
    ],
)
def test_each_engine_is_told_by_what_only_it_says(answers: dict[str, Answer | None], kind: BackendKind) -> None:
    assert recognise(answers) == Detected(kind, ("m",))


@pytest.mark.parametrize("listed", [None, Answer(401, b"", {}), Answer(200, b"<html>", {})])
def test_a_server_that_lists_no_models_is_not_there_yet(listed: Answer | None) -> None:
    assert recognise({"/v1/models": listed, "/metrics": ok(VLLM_METRICS)}) is None


def test_every_kind_has_its_backend() -> None:
    assert set(BACKENDS) == set(BackendKind)
    assert all(backend.kind is kind for kind, backend in BACKENDS.items())
    assert set().union(*(backend.gauges for backend in BACKENDS.values())) <= set(NodeLoad.__struct_fields__)
