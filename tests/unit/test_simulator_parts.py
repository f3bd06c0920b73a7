"""The small pure parts: prefix cache, metrics text, embeddings, the catalogue."""

import base64
import struct

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crosslogic.catalog.gpus import find_gpu
from crosslogic.catalog.models import Capability, find_model, load_models
from crosslogic.simulator import embedding
from crosslogic.simulator.metrics import Histogram, Metrics
from crosslogic.simulator.prefix import PrefixCache


def _words(count: int, mark: str = "w") -> list[str]:
    return [f"{mark}{i}" for i in range(count)]


def test_a_repeated_prompt_is_cached_up_to_its_last_whole_block() -> None:
    cache = PrefixCache(capacity_blocks=100, block_tokens=16)
    assert cache.claim(_words(40)) == 0
    assert cache.claim(_words(40)) == 32
    assert cache.claim([*_words(20), *_words(20, "other")]) == 16


def test_equal_blocks_after_different_beginnings_are_different() -> None:
    cache = PrefixCache(capacity_blocks=100, block_tokens=4)
    cache.claim([*_words(4, "a"), *_words(4, "same")])
    assert cache.claim([*_words(4, "b"), *_words(4, "same")]) == 0


def test_the_least_recently_used_prefix_is_forgotten_first() -> None:
    cache = PrefixCache(capacity_blocks=2, block_tokens=4)
    for mark in ("a", "b", "a", "c"):
        cache.claim(_words(4, mark))
    assert cache.claim(_words(4, "a")) == 4
    assert cache.claim(_words(4, "b")) == 0


def test_metrics_parse_as_prometheus_text_under_vllms_names() -> None:
    metrics = Metrics("acme/m")
    metrics.generation_tokens = 7
    metrics.finished["length"] = 2
    metrics.first_token.observe(0.03)
    metrics.first_token.observe(1e6)
    text = metrics.render(running=3, waiting=1, kv_used_ratio=0.25, preemptions=4).decode()
    samples = {
        (s.name, s.labels.get("le"), s.labels.get("finished_reason")): (s.value, s.labels["model_name"])
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    assert {model for _, model in samples.values()} == {"acme/m"}
    values = {key: value for key, (value, _) in samples.items()}
    assert values["vllm:num_requests_running", None, None] == 3
    assert values["vllm:num_requests_waiting", None, None] == 1
    assert values["vllm:kv_cache_usage_perc", None, None] == 0.25
    assert values["vllm:num_preemptions_total", None, None] == 4
    assert values["vllm:generation_tokens_total", None, None] == 7
    assert values["vllm:request_success_total", None, "length"] == 2
    assert values["vllm:time_to_first_token_seconds_bucket", "0.04", None] == 1
    assert values["vllm:time_to_first_token_seconds_bucket", "0.02", None] == 0
    assert values["vllm:time_to_first_token_seconds_bucket", "+Inf", None] == 2
    assert values["vllm:time_to_first_token_seconds_count", None, None] == 2


def test_a_value_on_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(1.0)
    assert 'x_bucket{l,le="1.0"} 1' in histogram.lines("x", "l")


@pytest.mark.parametrize("text", ["", "hello world", "übung 漢字", "\n"])
def test_embeddings_are_unit_vectors_of_the_asked_size(text: str) -> None:
    for size in (1, 8, 1024):
        vector = embedding.embed(text, size)
        assert len(vector) == size
        assert sum(v * v for v in vector) == pytest.approx(1.0)


def test_texts_that_share_words_are_closer() -> None:
    near = embedding.similarity("the cat sat on the mat", "a cat on a mat")
    far = embedding.similarity("the cat sat on the mat", "quarterly revenue grew")
    assert 1.0 >= near > far + 0.2
    assert embedding.similarity("same", "same") == pytest.approx(1.0)


def test_base64_vectors_are_little_endian_floats() -> None:
    vector = embedding.embed("hello", 16)
    unpacked = struct.unpack("<16f", base64.b64decode(embedding.as_base64(vector)))
    assert list(unpacked) == pytest.approx(vector, rel=1e-6)


def test_the_catalogue_knows_models_and_gpus_by_any_case_and_alias() -> None:
    llama = find_model("META-LLAMA/llama-3.1-8b-instruct")
    assert llama is not None
    # 2 (key and value) x 32 layers x 8 heads x 128 wide x 2 bytes
    assert llama.kv_bytes_per_token == 131_072
    assert Capability.CHAT in llama.capabilities
    gpu = find_gpu("nvidia-h100-80gb-hbm3")
    assert gpu is not None
    assert gpu.id == "h100_sxm"
    assert find_model("nobody/nothing") is None
    assert find_gpu("abacus") is None


def test_the_catalogue_is_consistent() -> None:
    for model_id, model in load_models().items():
        assert model.id == model_id
        assert 0 < model.active_parameters <= model.parameters
        assert 0 < model.max_output_tokens <= model.context_window
        assert model.capabilities
        assert (model.embedding_dimensions is not None) == (Capability.EMBEDDINGS in model.capabilities)
