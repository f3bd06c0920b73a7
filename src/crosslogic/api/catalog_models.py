"""Bodies of the planner's catalogue. Unknown fields are refused here as well."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from crosslogic.api.models import Body, View, Word
from crosslogic.api.usage_models import exact_usd
from crosslogic.catalog.cards import ModelCard
from crosslogic.catalog.gpus import GpuType
from crosslogic.catalog.health import DataHealth
from crosslogic.catalog.price_lists.rows import DOUBTS, PriceList
from crosslogic.catalog.prices import GpuPrice

MOST_LIST_CHARACTERS = 8_000_000
ListFormat = Literal["skypilot", "aws", "gcp", "azure"]
Usd = Annotated[Decimal, Field(description="exact decimal")]


class PriceImport(Body):
    format: ListFormat
    content: str = Field(max_length=MOST_LIST_CHARACTERS, description="the file as it is")
    cloud: Word | None = Field(default=None, description="where the file does not say it")
    as_of: date | None = Field(default=None, description="when it was fetched, where the file does not say it")
    source: Word | None = None


class ModelImport(Body):
    id: Word
    config: dict[str, Any] = Field(description="the model's config.json")
    parameters: int | None = Field(default=None, gt=0, description="where they do not follow from the file")
    active_parameters: int | None = Field(default=None, gt=0)
    licence: Word = "unknown"
    quality: Literal["basic", "standard", "high", "very_high"] = "standard"


class ImportedView(View):
    imported: int
    doubtful: int = Field(description="of these, prices that something speaks against")
    refused: list[str] = Field(description="the first rows that could not be used, and why")


class PriceView(View):
    cloud: str
    region: str
    zone: str | None
    instance_type: str
    gpu: str
    gpu_count: int
    market: str
    usd_per_hour: str
    as_of: date | None
    source: str
    doubts: list[str]

    @classmethod
    def of(cls, price: GpuPrice) -> "PriceView":
        return cls(
            cloud=price.cloud,
            region=price.region,
            zone=price.zone,
            instance_type=price.instance_type,
            gpu=price.gpu,
            gpu_count=price.gpu_count,
            market=price.market.value,
            usd_per_hour=exact_usd(price.per_hour_pusd),
            as_of=price.as_of,
            source=price.source,
            doubts=[DOUBTS[doubt] for doubt in price.doubts],
        )


class GpuView(View):
    id: str
    aliases: tuple[str, ...]
    manufacturer: str
    architecture: str
    memory_gb: int
    memory_mib: int
    bandwidth_gb_per_s: int
    bf16_tflops: int
    fp8_tflops: int
    tdp_watts: int
    max_per_node: int

    @classmethod
    def of(cls, gpu: GpuType) -> "GpuView":
        return cls.model_validate(gpu)


class CardView(View):
    id: str
    family: str
    parameters: int
    active_parameters: int
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    experts: int
    kv_lora_rank: int
    sliding_window: int | None
    dtype: str
    context_window: int
    kv_bytes_per_token: int
    licence: str
    quality: str
    domains: tuple[str, ...]

    @classmethod
    def of(cls, card: ModelCard) -> "CardView":
        fields = {name: getattr(card, name) for name in cls.model_fields if name != "kv_bytes_per_token"}
        return cls(**fields, kv_bytes_per_token=round(card.kv_bytes_per_token()))


class DataIssueView(View):
    kind: str
    severity: str
    sentence: str
    count: int
    examples: tuple[str, ...]


class DataHealthView(View):
    healthy: bool
    models: int
    gpus: int
    prices: int
    clean_prices: int = Field(description="those that nothing speaks against but perhaps their age")
    benchmarks: int
    issues: list[DataIssueView]

    @classmethod
    def of(cls, health: DataHealth) -> "DataHealthView":
        return cls.model_validate(health)


def imported(found: PriceList) -> ImportedView:
    return ImportedView(
        imported=len(found.prices),
        doubtful=sum(bool(price.doubts) for price in found.prices),
        refused=[f"line {each.line}: {each.reason}" for each in found.refused[:20]],
    )
