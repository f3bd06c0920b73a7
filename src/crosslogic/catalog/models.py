"""What is known of a model: its window, what it can do, and the sizes that its speed and memory follow from.

Invariant: the packaged data is read once, lazily, and never changes in a process. An unknown model is not an error
here; callers decide what to assume of it.
"""

from enum import StrEnum
from functools import cache
from importlib import resources

import msgspec


class Capability(StrEnum):
    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    SCORE = "score"
    RERANK = "rerank"


class ModelInfo(msgspec.Struct, frozen=True):
    """One model of the catalogue. Lengths are in tokens; KV bytes are per token at 16 bit."""

    id: str
    context_window: int  # prompt and answer together
    max_output_tokens: int
    capabilities: tuple[Capability, ...]
    parameters: int
    active_parameters: int  # per token; less than `parameters` in a mixture of experts
    kv_bytes_per_token: int
    licence: str
    embedding_dimensions: int | None = None


class _File(msgspec.Struct):
    source: str
    licence: str
    models: list[ModelInfo]


@cache
def load_models() -> dict[str, ModelInfo]:
    """All models of the packaged catalogue by their id."""
    data = resources.files("crosslogic.catalog").joinpath("data/models.json").read_bytes()
    return {model.id: model for model in msgspec.json.decode(data, type=_File).models}


@cache
def _by_folded_id() -> dict[str, ModelInfo]:
    return {model_id.lower(): model for model_id, model in load_models().items()}


def find_model(model_id: str) -> ModelInfo | None:
    """The model of this id in any letter case, or None."""
    return _by_folded_id().get(model_id.lower())
