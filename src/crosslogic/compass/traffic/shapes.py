"""Shapes of real traffic: how lengths spread, how requests bunch, how far peaks rise over the mean.

Invariant: the packaged shapes are read once and never change in a process; each names its source and licence.
"""

from functools import cache
from importlib import resources

import msgspec

from crosslogic.compass.specification.lengths import Bin, Lengths, lengths_of


class Shape(msgspec.Struct, frozen=True):
    """`prompt` and `output`: from, below, share of the requests."""

    source: str
    licence: str
    burstiness_cv: float
    peak_over_mean: float
    prompt: tuple[tuple[int, int, float], ...]
    output: tuple[tuple[int, int, float], ...]

    @property
    def prompt_tokens(self) -> Lengths:
        return lengths_of(Bin(*each) for each in self.prompt)

    @property
    def output_tokens(self) -> Lengths:
        return lengths_of(Bin(*each) for each in self.output)


class _File(msgspec.Struct):
    note: str
    shapes: dict[str, Shape]


@cache
def shapes() -> dict[str, Shape]:
    data = resources.files("crosslogic.compass.traffic").joinpath("data/shapes.json").read_bytes()
    return msgspec.json.decode(data, type=_File).shapes


def shape(name: str) -> Shape:
    return shapes()[name]


BURSTINESS = {
    "steady": "azure_2023_conv",
    "moderate": "servegen_m_large",
    "diurnal": "servegen_m_large",
    "high": "servegen_m_mid",
}
"""Whose burstiness a word of the documents stands for."""
