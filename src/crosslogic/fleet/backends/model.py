"""What differs between inference servers, as data.

Invariant: nothing outside `fleet/backends/` asks which engine a node runs; it asks for one of these properties.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from crosslogic.fleet.model import BackendKind


class Fold(StrEnum):
    """What to do with several samples of one metric (one for each model or each engine of a node)."""

    SUM = "sum"
    MAX = "max"


class Gauge(msgspec.Struct, frozen=True):
    """Where one field of `NodeLoad` stands in the engine's metrics; the first name that is there counts."""

    names: tuple[str, ...]
    fold: Fold = Fold.SUM


class Backend(msgspec.Struct, frozen=True):
    """One kind of inference server."""

    kind: BackendKind
    health_path: str
    """GET; 200 means that it serves."""
    metrics_path: str | None = None
    gauges: Mapping[str, Gauge] = {}
    """By the name of the field of `NodeLoad`."""
    models_path: str = "/v1/models"
    tokenize_path: str | None = None
    can_continue: bool = False
    """It goes on from a partial answer: prompts are taken as they are, and a chat's last message may be the
    assistant's (`continue_final_message`)."""
    completion_tokens: int | None = None
    """The length of a completion for which no maximum is given; None: as long as it gets."""
    accepts_cache_salt: bool = False
    """The body may carry `cache_salt`, which keeps prefix caches of different salts apart (`cache/salt.py`)."""
