"""What is missing, old or dubious in the data that planning builds on. Pure.

Models want an architecture and measured rows, GPUs prices and measured rows, rows a model and a GPU of the catalogue;
prices a date and no doubt (`price_lists/rows.py` has the rules).

Invariant: a finding is a sentence with a count and examples; the same data gives the same findings in the same order.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from enum import StrEnum

import msgspec

from crosslogic.catalog.cards import ModelCard
from crosslogic.catalog.gpus import GpuType
from crosslogic.catalog.price_lists.rows import DOUBTS, PriceList

_EXAMPLES = 3
_OLD_ROWS = timedelta(days=365)


class Severity(StrEnum):
    WARNING = "warning"  # plans are less certain by it
    NOTICE = "notice"  # good to know


class Measured(msgspec.Struct, frozen=True):
    """One configuration that there are benchmark rows of."""

    model: str
    gpu: str
    measured_on: date | None = None


class DataIssue(msgspec.Struct, frozen=True):
    kind: str
    severity: Severity
    sentence: str
    count: int
    examples: tuple[str, ...]


class DataHealth(msgspec.Struct, frozen=True):
    models: int
    gpus: int
    prices: int
    clean_prices: int
    benchmarks: int
    issues: tuple[DataIssue, ...]

    @property
    def healthy(self) -> bool:
        return not any(issue.severity is Severity.WARNING for issue in self.issues)


def data_health(
    cards: Sequence[ModelCard],
    gpus: Sequence[GpuType],
    prices: PriceList,
    measured: Iterable[Measured],
    today: date,
) -> DataHealth:
    measured = tuple(measured)
    issues = [
        *_cross_references(cards, gpus, prices, measured),
        *_of_prices(prices),
        *_of_rows(measured, today),
    ]
    return DataHealth(
        models=len(cards),
        gpus=len(gpus),
        prices=len(prices.prices),
        clean_prices=sum(not set(price.doubts) - {"stale"} for price in prices.prices),
        benchmarks=len(measured),
        issues=tuple(issue for issue in issues if issue.count),
    )


def _issue(kind: str, severity: Severity, sentence: str, found: Iterable[str]) -> DataIssue:
    names = list(found)
    examples = tuple(dict.fromkeys(names))[:_EXAMPLES]
    return DataIssue(kind, severity, sentence.format(n=len(names)), len(names), examples)


def _cross_references(
    cards: Sequence[ModelCard], gpus: Sequence[GpuType], prices: PriceList, measured: Sequence[Measured]
) -> list[DataIssue]:
    names = {name.lower() for card in cards for name in (card.id, *card.aliases)}
    known = {gpu.id for gpu in gpus}
    rows_of_models = {each.model.lower() for each in measured}
    rows_of_gpus = {each.gpu for each in measured}
    priced = {price.gpu for price in prices.prices}
    return [
        _issue(
            "model_without_benchmarks",
            Severity.NOTICE,
            "{n} models of the catalogue have no benchmark; what is said of them is estimated",
            (c.id for c in cards if not {n.lower() for n in (c.id, *c.aliases)} & rows_of_models),
        ),
        _issue(
            "gpu_without_benchmarks",
            Severity.NOTICE,
            "{n} GPUs of the catalogue have no benchmark; what is said of them is estimated",
            (gpu.name for gpu in gpus if gpu.id not in rows_of_gpus),
        ),
        _issue(
            "gpu_without_price",
            Severity.WARNING,
            "{n} GPUs have benchmarks but no price; import a price list that has them",
            (gpu.name for gpu in gpus if gpu.id in rows_of_gpus and gpu.id not in priced),
        ),
        _issue(
            "benchmark_of_unknown_model",
            Severity.WARNING,
            "{n} benchmarked configurations are of models that are not in the catalogue; import their config.json",
            sorted({each.model for each in measured if each.model.lower() not in names}),
        ),
        _issue(
            "benchmark_of_unknown_gpu",
            Severity.WARNING,
            "{n} benchmarked configurations are of GPUs that are not in the catalogue",
            sorted({each.gpu for each in measured if each.gpu not in known}),
        ),
    ]


def _of_prices(prices: PriceList) -> list[DataIssue]:
    doubted: dict[str, list[str]] = defaultdict(list)
    for price in prices.prices:
        where = f"{price.cloud} {price.instance_type} in {price.zone or price.region} ({price.market})"
        for doubt in price.doubts:
            doubted[doubt].append(where)
    found = [
        _issue(f"price_{doubt}", Severity.WARNING, f"of {{n}} prices: {meaning}", doubted.get(doubt, ()))
        for doubt, meaning in DOUBTS.items()
    ]
    reasons = Counter(each.reason for each in prices.refused)
    found.append(
        _issue(
            "price_unusable",
            Severity.NOTICE,
            "{n} kinds of rows of the price list are unusable",
            (f"{reason} ({count} rows)" for reason, count in reasons.most_common()),
        )
    )
    return found


def _of_rows(measured: Sequence[Measured], today: date) -> list[DataIssue]:
    return [
        _issue(
            "benchmark_old",
            Severity.WARNING,
            "{n} benchmarked configurations were measured more than a year ago; engines have become faster since",
            (
                f"{each.model} on {each.gpu}"
                for each in measured
                if each.measured_on is not None and today - each.measured_on > _OLD_ROWS
            ),
        )
    ]
