"""Reads a model's `config.json` (the Hugging Face layout) into a card: sizes, mixture, latent attention, windows. Pure.

Invariant: what the file does not say is not guessed silently. A layout that this cannot read is refused with what is
missing; where a hybrid's weights do not follow from the file, their number has to be given.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from crosslogic.catalog.cards import ModelCard
from crosslogic.kernel.errors import InvalidRequest

_MOST_BYTES = 4_000_000
_MOST_SIZE = 10**9
_WINDOW_EVERY = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6}  # every nth layer is global
_LINEAR = ("linear_attention", "mamba", "mamba2", "recurrent")
_BITS = {4: "int4", 8: "int8", 16: "bf16"}

Fields = Mapping[str, Any]


def read_config(content: bytes, model_id: str, *, parameters: int | None = None, **told: Any) -> ModelCard:
    """The card of the model that this `config.json` is of; `told` are fields that the file does not hold.

    `parameters` is their number where it is known better than by arithmetic. Raises InvalidRequest.
    """
    if len(content) > _MOST_BYTES:
        raise InvalidRequest("config.json is larger than 4 MB, which no model's is")
    try:
        whole = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"config.json is not JSON ({error})") from None
    if not isinstance(whole, Mapping):
        raise InvalidRequest("config.json is not an object")
    inner = whole.get("text_config") or whole.get("llm_config") or {}
    fields = {**whole, **inner} if isinstance(inner, Mapping) else dict(whole)
    sizes = _sizes(fields)
    card = ModelCard(
        id=model_id,
        family=str(fields.get("model_type", "unknown"))[:64],
        parameters=0,
        active_parameters=0,
        dtype=_dtype(fields),
        context_window=_whole(fields, "max_position_embeddings", "model_max_length", "n_positions", default=8192),
        tied_embeddings=fields.get("tie_word_embeddings") is True,
        **sizes,
        **_mixture(fields, sizes["layers"]),
        **_latent(fields),
        **_windows(fields, sizes["layers"]),
        **told,
    )
    total, active = parameter_counts(card, _whole(fields, "q_lora_rank", default=0), _value_dim(fields, card))
    if card.linear_layers and parameters is None:
        raise InvalidRequest(
            f"{model_id} mixes attention with linear layers, whose weights do not follow from config.json; "
            "say how many parameters it has (--parameters 397e9), and how many are active",
            param="parameters",
        )
    if parameters is not None:
        active = round(active * parameters / total)
        total = parameters
    return msgspec.structs.replace(
        card, parameters=total, active_parameters=told.get("active_parameters") or min(active, total)
    )


def parameter_counts(card: ModelCard, q_lora_rank: int = 0, value_dim: int | None = None) -> tuple[int, int]:
    """All weights, and those that one token passes through."""
    hidden = card.hidden_size
    embeddings = card.vocab_size * hidden * (1 if card.tied_embeddings else 2)
    attention = _attention_weights(card, q_lora_rank, card.head_dim if value_dim is None else value_dim)
    dense = 3 * hidden * card.ffn_size
    expert = 3 * hidden * card.expert_ffn_size
    mixed = card.layers - card.dense_layers if card.is_moe else 0
    beside = card.layers * attention + (card.layers - mixed) * dense + embeddings
    shared = mixed * (card.shared_experts * expert + hidden * card.experts)
    total = beside + shared + mixed * card.experts * expert
    return total, beside + shared + mixed * card.experts_per_token * expert


def _attention_weights(card: ModelCard, q_lora_rank: int, value_dim: int) -> int:
    hidden, heads = card.hidden_size, card.attention_heads
    if card.is_mla:
        key = card.head_dim  # without and with position together
        queries = (hidden + heads * key) * q_lora_rank if q_lora_rank else hidden * heads * key
        compressed = hidden * (card.kv_lora_rank + card.rope_head_dim)
        expanded = card.kv_lora_rank * heads * (key - card.rope_head_dim + value_dim)
        return queries + compressed + expanded + heads * value_dim * hidden
    return 2 * hidden * heads * card.head_dim + 2 * hidden * card.kv_heads * card.head_dim


def _sizes(fields: Fields) -> dict[str, Any]:
    hidden = _whole(fields, "hidden_size", "n_embd", "d_model")
    heads = _whole(fields, "num_attention_heads", "n_head")
    latent = _whole(fields, "kv_lora_rank", default=0)
    if latent:
        head_dim = _whole(fields, "qk_nope_head_dim") + _whole(fields, "qk_rope_head_dim")
    else:
        head_dim = _whole(fields, "head_dim", default=max(1, hidden // heads))
    kv_heads = _whole(fields, "num_key_value_heads", default=heads)
    if kv_heads > heads:
        raise InvalidRequest("config.json: num_key_value_heads is more than num_attention_heads")
    return {
        "layers": _whole(fields, "num_hidden_layers", "n_layer"),
        "hidden_size": hidden,
        "ffn_size": _whole(fields, "intermediate_size_mlp", "intermediate_size", "n_inner", default=0),
        "attention_heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": _whole(fields, "vocab_size"),
    }


def _mixture(fields: Fields, layers: int) -> dict[str, Any]:
    experts = _whole(fields, "n_routed_experts", "num_local_experts", "num_experts", default=0)
    if not experts:
        if not _whole(fields, "intermediate_size_mlp", "intermediate_size", "n_inner", default=0):
            raise InvalidRequest("config.json: intermediate_size is missing", param="intermediate_size")
        return {}
    per_token = _whole(fields, "num_experts_per_tok", "experts_per_token", "top_k_experts")
    size = _whole(fields, "moe_intermediate_size", "intermediate_size")
    shared = _whole(fields, "n_shared_experts", default=0)
    if not shared and _whole(fields, "shared_expert_intermediate_size", default=0):
        shared = max(1, round(_whole(fields, "shared_expert_intermediate_size") / size))
    if not shared and fields.get("model_type") in ("llama4", "llama4_text"):
        shared = 1
    dense = _whole(fields, "first_k_dense_replace", default=0)
    every = _whole(fields, "interleave_moe_layer_step", "decoder_sparse_step", default=1)
    if every > 1:
        dense = layers - layers // every
    only = fields.get("mlp_only_layers")
    if isinstance(only, list) and only:
        dense = len(only)
    return {
        "experts": experts,
        "experts_per_token": min(per_token, experts),
        "shared_experts": shared,
        "expert_ffn_size": size,
        "dense_layers": min(dense, layers),
    }


def _latent(fields: Fields) -> dict[str, Any]:
    rank = _whole(fields, "kv_lora_rank", default=0)
    return {"kv_lora_rank": rank, "rope_head_dim": _whole(fields, "qk_rope_head_dim")} if rank else {}


def _value_dim(fields: Fields, card: ModelCard) -> int:
    return _whole(fields, "v_head_dim", default=card.head_dim)


def _windows(fields: Fields, layers: int) -> dict[str, Any]:
    kinds = fields.get("layer_types")
    names = [str(kind) for kind in kinds] if isinstance(kinds, list) else []
    linear = sum(name in _LINEAR for name in names)
    if not linear and isinstance(pattern := fields.get("hybrid_override_pattern"), str):
        linear = layers - pattern.count("*")
    if not linear and (interval := _whole(fields, "full_attention_interval", default=0)) > 1:
        linear = layers - layers // interval
    found: dict[str, Any] = {"linear_layers": min(linear, layers)} if linear else {}
    window = _whole(fields, "sliding_window", "attention_chunk_size", default=0)
    if not window or fields.get("use_sliding_window") is False:
        return found
    if names:
        windowed = sum("sliding" in name or "chunked" in name for name in names)
    elif every := _WINDOW_EVERY.get(str(fields.get("model_type", "")), 0):
        windowed = layers - layers // every
    elif fields.get("model_type") in ("llama4", "llama4_text"):
        windowed = layers - layers // 4
    else:
        windowed = layers
    return {**found, "sliding_window": window, "sliding_layers": windowed} if windowed else found


def _dtype(fields: Fields) -> str:
    quantized = fields.get("quantization_config")
    if isinstance(quantized, Mapping):
        return _quantized(quantized)
    named = str(fields.get("torch_dtype") or fields.get("dtype") or "bfloat16")
    return {"float16": "fp16", "float32": "fp32"}.get(named, "bf16")


def _quantized(config: Fields) -> str:
    method = str(config.get("quant_method", "")).lower()
    algorithm = str(config.get("quant_algo", "")).upper()
    if "FP4" in algorithm or "fp4" in method:
        return "fp4"
    if "FP8" in algorithm or "fp8" in method:
        return "fp8"
    groups = config.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            bits = weights.get("num_bits")
            if weights.get("type") == "float":
                return "fp4" if bits == 4 else "fp8"
            return "int4" if bits == 4 else "int8"
    if config.get("load_in_4bit") is True:
        return "int4"
    bits = config.get("bits", config.get("w_bit", 16))
    return _BITS.get(bits, "int8") if isinstance(bits, int) else "int8"


def _whole(fields: Fields, *names: str, default: int | None = None) -> int:
    """The first of these fields that is there, a whole number that a model can have."""
    for name in names:
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value > _MOST_SIZE:
            raise InvalidRequest(f"config.json: {name} is {value!r}, which is no size of a model", param=name)
        if int(value) != value or value < 0 or (value == 0 and default is None):
            raise InvalidRequest(f"config.json: {name} is {value!r}, which is no size of a model", param=name)
        return int(value)
    if default is None:
        raise InvalidRequest(
            f"config.json: {names[0]} is missing; is this the model's own config.json?", param=names[0]
        )
    return default
