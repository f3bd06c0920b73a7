"""The architecture of models, from which memory and speed follow: what their `config.json` says, and their model card.

Invariant: as for models, the packaged data is read once and never changes in a process; what was imported counts for
whoever has said so (`in_force`), a request or a question to the planner. Sizes are those of the checkpoint that the id
names; other precisions of it are arithmetic of the planner.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache, cached_property
from importlib import resources

import msgspec


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint. `quality` is our tier from its model card (size, generation, purpose), not a benchmark score."""

    id: str
    family: str
    aliases: tuple[str, ...] = ()
    parameters: int
    active_parameters: int  # per token; less than `parameters` in a mixture of experts
    layers: int
    hidden_size: int
    ffn_size: int  # of dense layers
    attention_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    dtype: str = "bf16"  # of the weights: bf16, fp8, int8, int4, fp4
    context_window: int = 8192
    tied_embeddings: bool = False
    # Mixture of experts; 0: dense.
    experts: int = 0
    experts_per_token: int = 0
    shared_experts: int = 0
    expert_ffn_size: int = 0
    dense_layers: int = 0  # that are no mixtures
    # Latent attention (DeepSeek, Kimi): the cache holds this much for each token and layer instead of K and V.
    kv_lora_rank: int = 0
    rope_head_dim: int = 0
    # Layers whose window is bounded; the others keep all, but for the linear ones, which keep a state of fixed size.
    sliding_window: int | None = None
    sliding_layers: int = 0
    linear_layers: int = 0
    licence: str = "unknown"
    quality: str = "standard"  # basic, standard, high, very_high
    tasks: tuple[str, ...] = ()  # use cases that its card names, empty: any
    domains: tuple[str, ...] = ("general",)
    released: str = ""  # year-month
    source: str = ""

    @property
    def is_moe(self) -> bool:
        return self.experts > 0

    @property
    def is_mla(self) -> bool:
        return self.kv_lora_rank > 0

    def kv_bytes_per_token(self, bytes_per_value: float = 2.0) -> float:
        """Of KV cache in all layers, for a token that all layers keep."""
        return (self.layers - self.linear_layers) * self._kv_values_per_layer * bytes_per_value

    def kv_bytes(self, tokens: int, bytes_per_value: float = 2.0) -> float:
        """Of KV cache of one sequence of this length, its windowed layers keeping no more than their window."""
        windowed = self.sliding_layers if self.sliding_window is not None else 0
        kept = min(tokens, self.sliding_window or tokens)
        full = self.layers - self.linear_layers - windowed
        return (full * tokens + windowed * kept) * self._kv_values_per_layer * bytes_per_value

    @property
    def _kv_values_per_layer(self) -> int:
        if self.is_mla:
            return self.kv_lora_rank + self.rope_head_dim
        return 2 * self.kv_heads * self.head_dim


BITS_PER_WEIGHT = {"bf16": 16.0, "fp16": 16.0, "fp32": 32.0, "fp8": 8.0, "int8": 8.0, "int4": 4.5, "fp4": 4.5}
"""With scales and zero points of the usual group sizes."""


class _File(msgspec.Struct):
    source: str
    licence: str
    cards: list[ModelCard]


class Cards:
    """A catalogue that does not change. `imported` are ids that are in place of, or besides, the packaged ones."""

    def __init__(self, by_id: Mapping[str, ModelCard], imported: frozenset[str] = frozenset()) -> None:
        self.by_id = dict(by_id)
        self.imported = imported

    @cached_property
    def by_folded_name(self) -> dict[str, ModelCard]:
        return {name.lower(): card for card in self.by_id.values() for name in (*card.aliases, card.id)}


_in_force: ContextVar[Cards | None] = ContextVar("cards in force", default=None)


@cache
def packaged_cards() -> Cards:
    """All architectures that come with the product."""
    data = resources.files("crosslogic.catalog").joinpath("data/cards.json").read_bytes()
    return Cards({card.id: card for card in msgspec.json.decode(data, type=_File).cards})


def with_imported(imported: Mapping[str, ModelCard]) -> Cards:
    """The packaged ones with these in their place or besides."""
    return Cards({**packaged_cards().by_id, **imported}, frozenset(imported)) if imported else packaged_cards()


def in_force(cards: Cards) -> None:
    """From here on, in this task and what it starts, these are the models that there are."""
    _in_force.set(cards)


def cards() -> Cards:
    """Those in force here; else the packaged ones."""
    return _in_force.get() or packaged_cards()


def load_cards() -> dict[str, ModelCard]:
    """All architectures in force by their id."""
    return cards().by_id


def find_card(name: str) -> ModelCard | None:
    """The architecture of this id or alias in any letter case, or None."""
    return cards().by_folded_name.get(name.lower())
