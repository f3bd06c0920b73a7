"""Sizes read from config.json files agree with what the models' cards say of themselves."""

import json
from typing import Any

import pytest

from crosslogic.catalog.cards import find_card, load_cards
from crosslogic.catalog.config_json import read_config
from crosslogic.catalog.models import find_model
from crosslogic.kernel.errors import InvalidRequest

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def _read(**changes: Any) -> Any:
    fields = {name: value for name, value in {**LLAMA_8B, **changes}.items() if value is not None}
    return read_config(json.dumps(fields).encode(), "acme/model")


@pytest.mark.parametrize(
    ("model", "total", "active"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03e9, 8.03e9),
        ("meta-llama/Llama-3.1-405B-Instruct", 405.9e9, 405.9e9),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7e9, 12.9e9),
        ("Qwen/Qwen3-235B-A22B-FP8", 235.1e9, 22.2e9),
        ("deepseek-ai/DeepSeek-R1", 671e9, 37.5e9),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400.7e9, 17.2e9),
        ("openai/gpt-oss-120b", 116.8e9, 5.7e9),
        ("google/gemma-2-27b-it", 27.2e9, 27.2e9),
    ],
)
def test_parameters_follow_from_sizes_as_cards_state_them(model: str, total: float, active: float) -> None:
    card = find_card(model)
    assert card is not None
    assert card.parameters == pytest.approx(total, rel=0.01)
    assert card.active_parameters == pytest.approx(active, rel=0.01)


def test_both_catalogues_agree_on_the_cache_of_a_token() -> None:
    both = [(card, info) for card in load_cards().values() if (info := find_model(card.id)) is not None]
    assert len(both) > 15
    assert {card.id: card.kv_bytes_per_token() for card, _ in both} == {
        card.id: info.kv_bytes_per_token for card, info in both
    }


def test_latent_attention_keeps_one_small_vector_for_each_layer() -> None:
    card = find_card("deepseek-r1")
    assert card is not None
    assert card.is_mla
    assert card.kv_bytes_per_token() == 61 * (512 + 64) * 2


def test_windowed_layers_keep_no_more_than_their_window() -> None:
    card = find_card("gpt-oss-120b")
    assert card is not None
    per_layer = 2 * 8 * 64 * 2
    assert card.kv_bytes(10_000) == (18 * 10_000 + 18 * 128) * per_layer
    assert card.kv_bytes(100) == 36 * 100 * per_layer


def test_linear_layers_keep_no_cache() -> None:
    card = find_card("qwen3.5")
    assert card is not None
    assert card.kv_bytes_per_token() == 15 * 2 * 2 * 256 * 2


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "fp4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}}, "fp8"),
        ({"config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}}}}, "int8"),
        (None, "bf16"),
    ],
)
def test_the_precision_is_what_the_quantisation_says(quantization: Any, dtype: str) -> None:
    assert _read(quantization_config=quantization).dtype == dtype


def test_the_language_part_of_a_vision_model_counts() -> None:
    nested = json.dumps({"model_type": "acme_vl", "vision_config": {"hidden_size": 7}, "text_config": LLAMA_8B})
    assert read_config(nested.encode(), "acme/vl").parameters == _read().parameters


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"intermediate_size": None}, "intermediate_size is missing"),
        ({"num_hidden_layers": -3}, "num_hidden_layers is -3"),
        ({"vocab_size": 1e300}, "vocab_size is"),
        ({"num_key_value_heads": 64}, "more than num_attention_heads"),
        ({"layer_types": ["linear_attention", "full_attention"] * 16}, "how many parameters"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        _read(**changes)


@pytest.mark.parametrize("content", [b"", b"[]", b"not json", b"\xff\xfe", b'{"hidden_size": "big"}', b"[" * 100_000])
def test_a_file_that_is_no_config_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_config(content, "acme/model")
