"""Reading what engines answer: Prometheus text into `NodeLoad`, model lists into names.

Engines are not trusted (architecture document §3.4): anything malformed is left out, numbers are bounded, and no
answer can raise.
"""

import math
from collections.abc import Mapping

import msgspec

from crosslogic.fleet.backends.model import Backend, Fold, Gauge
from crosslogic.fleet.model import NodeLoad

MAX_MODELS = 1_000
MAX_MODEL_NAME_CHARS = 256
_MOST = 1e12


class _ListedModel(msgspec.Struct):
    id: str
    owned_by: str | None = None


class _ModelList(msgspec.Struct):
    data: list[_ListedModel]


def samples(text: str) -> dict[str, list[float]]:
    """The values of each metric of the Prometheus text format, labels and timestamps dropped."""
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        if not line or line[0] == "#":
            continue
        name, brace, rest = line.partition("{")
        if brace:
            # A label's value may hold spaces and braces, but what follows the last brace is numbers only.
            rest = rest.rpartition("}")[2]
        else:
            name, _, rest = line.partition(" ")
        fields = rest.split()
        if not fields:
            continue
        try:
            value = float(fields[0])
        except ValueError:
            continue
        if math.isfinite(value):
            found.setdefault(name.strip(), []).append(value)
    return found


def read_load(backend: Backend, text: str) -> NodeLoad:
    """The load in a backend's metrics; what the metrics do not say is as in `NodeLoad()`."""
    found = samples(text)
    values = {field: _read(gauge, found) for field, gauge in backend.gauges.items()}
    ratio = values.get("kv_cache_used_ratio")
    return NodeLoad(
        requests_running=int(values.get("requests_running") or 0),
        requests_waiting=int(values.get("requests_waiting") or 0),
        kv_cache_used_ratio=None if ratio is None else min(1.0, ratio),
        tokens_per_second=values.get("tokens_per_second"),
    )


def _read(gauge: Gauge, found: Mapping[str, list[float]]) -> float | None:
    for name in gauge.names:
        values = found.get(name)
        if values:
            folded = sum(values) if gauge.fold is Fold.SUM else max(values)
            return min(max(0.0, folded), _MOST)
    return None


def read_models(body: bytes) -> tuple[str, ...] | None:
    """The names in an OpenAI model list, sorted; None when it is none."""
    listed = _model_list(body)
    if listed is None:
        return None
    names = {model.id for model in listed if 0 < len(model.id) <= MAX_MODEL_NAME_CHARS}
    return tuple(sorted(names)[:MAX_MODELS])


def read_owners(body: bytes) -> frozenset[str]:
    """The `owned_by` of the models in a model list."""
    return frozenset(model.owned_by for model in _model_list(body) or () if model.owned_by is not None)


def _model_list(body: bytes) -> list[_ListedModel] | None:
    try:
        return msgspec.json.decode(body, type=_ModelList).data
    except (msgspec.DecodeError, RecursionError):
        return None
