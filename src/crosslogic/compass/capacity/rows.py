"""Measured rows as the step-time model reads them: one engine, closed loop, one length of prompts and answers.

Invariant: a row is said once. The packaged file repeats some under two names; a repeat in another fold would let the
model see what it is judged by.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources

import msgspec

from crosslogic.catalog.cards import ModelCard, find_card
from crosslogic.catalog.gpus import GpuType, find_gpu
from crosslogic.simulator.fit import Configuration, Row, read_rows

_MOST_PARALLEL = 16  # GPUs in tensor parallel


class Load(msgspec.Struct, frozen=True):
    """What the engine is under: so many requests at once, of these lengths."""

    running: float
    prompt_tokens: float
    output_tokens: float


class MeasuredRow(msgspec.Struct, frozen=True):
    configuration: Configuration
    load: Load
    ttft_s: float
    itl_s: float


class Architecture(msgspec.Struct, frozen=True):
    """What of a model decides its speed; quantised checkpoints of one model are the same."""

    key: str
    parameters: float
    active_parameters: float
    kv_bytes_per_token: float
    moe: bool


def architecture(card: ModelCard) -> Architecture:
    sizes = (card.layers, card.hidden_size, card.kv_heads, card.ffn_size, card.experts, card.kv_lora_rank)
    return Architecture(
        key="/".join(map(str, sizes)),
        parameters=float(card.parameters),
        active_parameters=float(card.active_parameters),
        kv_bytes_per_token=card.kv_bytes_per_token(),
        moe=card.is_moe,
    )


class Layout(msgspec.Struct, frozen=True):
    """How one engine lies on its GPUs: `replicas` of attention with `tp` GPUs each, experts in `ep` groups of them."""

    tp: int
    replicas: int = 1
    ep: int = 1
    stages: int = 1

    @property
    def gpus(self) -> int:
        return self.tp * self.replicas * self.stages


def layout_of(configuration: Configuration) -> Layout:
    """As its words say: `dp4 ep4` with tensor parallelism 1 is four replicas of attention on four GPUs."""
    sizes = {word[:2]: int(word[2:]) for word in configuration.layout.split()}
    return Layout(configuration.tp, sizes.get("dp", 1), sizes.get("ep", 1), sizes.get("pp", 1))


def usable(configuration: Configuration) -> tuple[ModelCard, GpuType] | None:
    """Model and GPU of a configuration that the catalogue knows, and that can be one engine.

    The packaged file has rows of DeepSeek-R1 on 36 GPUs "in tensor parallel", which do not divide its 128 heads: those
    are whole clusters.
    """
    card, gpu = find_card(configuration.model), find_gpu(configuration.gpu)
    if card is None or gpu is None or card.attention_heads % configuration.tp or configuration.tp > _MOST_PARALLEL:
        return None
    return card, gpu


def distinct(rows: Iterable[MeasuredRow]) -> tuple[MeasuredRow, ...]:
    """Each once, whatever it was rounded to, and only those of models and GPUs in the catalogue."""
    found: dict[object, MeasuredRow] = {}
    for row in rows:
        if usable(row.configuration) is not None:
            found.setdefault((row.configuration, row.load, f"{row.itl_s:.3g} {row.ttft_s:.3g}"), row)
    return tuple(found.values())


def of_simulator(groups: dict[Configuration, list[Row]]) -> tuple[MeasuredRow, ...]:
    """The rows that the simulator is fitted to."""
    return distinct(
        MeasuredRow(configuration, Load(row.clients, row.input_tokens, row.output_tokens), row.ttft_s, row.itl_s)
        for configuration, rows in sorted(groups.items())
        for row in rows
    )


@cache
def packaged_rows() -> tuple[MeasuredRow, ...]:
    """Those that come with the product; source and licence are beside the file."""
    file = resources.files("crosslogic.simulator").joinpath("data/measured_e2e_silicon.csv.gz")
    with resources.as_file(file) as path:
        return of_simulator(read_rows(path))
