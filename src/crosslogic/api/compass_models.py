"""Bodies of the planner. Specifications, changes and outcomes are its own values, in and out as they are."""

from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends
from pydantic import Field

from crosslogic.api.auth import Services
from crosslogic.api.models import Body, View, Word
from crosslogic.api.services import ApiServices
from crosslogic.catalog.cards import in_force
from crosslogic.compass.knowledge.model import Benchmark, Setup
from crosslogic.compass.ranking.model import Recommendation
from crosslogic.compass.ranking.planner import Bias
from crosslogic.compass.scenarios.change import Change
from crosslogic.compass.scenarios.sql import Scenario
from crosslogic.compass.specification.model import Specification
from crosslogic.kernel.errors import InvalidRequest, Unavailable
from crosslogic.kernel.ids import OrgId

T = TypeVar("T")

MOST_REJECTIONS = 50

Document = Annotated[
    dict[str, Any], Field(description="as `/api/v1/compass/recommendations` and the planner's page say")
]
Millis = Annotated[float, Field(ge=0, le=3_600_000, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]


async def _models_in_force(services: Services) -> None:
    """What operators imported is there for whatever this request understands, checks and plans."""
    in_force(await services.planning.cards())


MODELS_IN_FORCE = Depends(_models_in_force)


class Asked(Body):
    """One of the two."""

    specification: Document | None = Field(
        default=None, description="use_case, experience, traffic, slo, and what else is wished"
    )
    specification_id: Word | None = Field(default=None, description="of one that the organisation keeps")

    async def spec(self, services: ApiServices, org_id: OrgId | None) -> Specification:
        return await specification_of(services, org_id, self.specification, self.specification_id)


class AskedFor(Asked):
    org: Word | None = Field(default=None, description="with what its outcomes taught")


class Compared(Asked):
    change: Document = Field(description="what differs: model, gpu, traffic_times, ttft_p95_ms, …")

    def changes(self) -> Change:
        return converted(self.change, Change, "change")


class Doubted(Asked):
    draws: int = Field(default=400, ge=10, le=5000, description="of traffic and of the model's uncertainty")


class ScenarioCreate(Compared):
    name: Word
    change: Document = Field(default={}, description="what differs from the specification; empty: nothing")
    shared: bool = Field(default=False, description="with everybody of the organisation")


async def specification_of(
    services: ApiServices, org_id: OrgId | None, given: dict[str, Any] | None, kept: str | None
) -> Specification:
    """The one that was given, or the organisation's own that is kept under the id."""
    if (given is None) is (kept is None):
        raise InvalidRequest("give a specification, or the id of one: one of the two", param="specification")
    if given is not None:
        return converted(given, Specification, "specification")
    if services.compass is None:
        raise Unavailable("this process keeps no specifications")
    if org_id is None or kept is None:
        raise InvalidRequest("say whose specification it is", param="org")
    return (await services.compass.specification(org_id, kept)).specification


class ScenarioChange(Body):
    """What is left out stays as it is."""

    name: Word | None = None
    shared: bool | None = None


class ScenarioView(View):
    id: str
    name: str
    owner: str
    shared: bool
    specification: dict[str, Any]
    change: dict[str, Any]
    outcome: dict[str, Any] = Field(description="what was recommended when it was made")
    created_at: datetime

    @classmethod
    def of(cls, scenario: Scenario) -> "ScenarioView":
        return cls(
            id=scenario.id,
            name=scenario.name,
            owner=scenario.owner,
            shared=scenario.shared,
            specification=msgspec.to_builtins(scenario.specification),
            change={key: value for key, value in msgspec.to_builtins(scenario.changes).items() if value is not None},
            outcome=scenario.outcome,
            created_at=scenario.created_at,
        )


class BenchmarkBody(Body):
    """One point of a run. Times are in milliseconds, percentiles of successful requests."""

    model: Word
    gpu: Word = Field(description="id or alias of the GPU catalogue")
    gpu_count: Annotated[int, Field(ge=1, le=1024)] = 1
    precision: Word = "bf16"
    backend: Word = "vllm"
    backend_version: Word | None = None
    prompt_tokens: Tokens
    output_tokens: Tokens
    ttft_p95_ms: Millis | None = None
    itl_p95_ms: Millis | None = None
    e2e_p95_ms: Millis | None = None
    ttft_mean_ms: Millis | None = None
    itl_mean_ms: Millis | None = None
    e2e_mean_ms: Millis | None = None
    requests_per_second: Rate | None = None
    offered_per_second: Rate | None = None
    concurrency: Rate | None = None
    mean_input_tokens: Rate | None = None
    mean_output_tokens: Rate | None = None
    requests: Annotated[int, Field(ge=0, le=10**9)] | None = None
    failed: Annotated[int, Field(ge=0, le=10**9)] = 0
    source: Word
    measured_at: datetime | None = None
    stale: bool = False


class BenchmarksBody(Body):
    benchmarks: Annotated[list[BenchmarkBody], Field(min_length=1, max_length=2000)]


class Imported(View):
    added: int = Field(description="points that were not there yet")
    left_out: list[str] = Field(description="why others were not taken")


class BenchmarkView(View):
    id: str
    model: str
    gpu: str
    gpu_count: int
    precision: str
    backend: str
    backend_version: str | None
    prompt_tokens: int
    output_tokens: int
    ttft_p95_ms: float | None
    itl_p95_ms: float | None
    e2e_p95_ms: float | None
    ttft_mean_ms: float | None
    itl_mean_ms: float | None
    e2e_mean_ms: float | None
    requests_per_second: float | None
    offered_per_second: float | None
    concurrency: float | None
    requests: int | None
    failed: int
    source: str
    measured_at: datetime | None
    stale: bool

    @classmethod
    def of(cls, point_id: str, point: Benchmark) -> "BenchmarkView":
        fields = msgspec.structs.asdict(point)
        setup = msgspec.structs.asdict(fields.pop("setup"))
        return cls(
            id=point_id, **{name: value for name, value in {**setup, **fields}.items() if name in cls.model_fields}
        )


def benchmark(body: BenchmarkBody, gpu: str) -> Benchmark:
    fields = body.model_dump(exclude={"model", "gpu", "gpu_count", "precision", "backend", "backend_version"})
    setup = Setup(body.model, gpu, body.gpu_count, body.precision, body.backend, body.backend_version)
    return Benchmark(setup=setup, **fields)


def converted(document: dict[str, Any], kind: type[T], param: str) -> T:
    """Raises InvalidRequest, saying where the document is not what the planner takes."""
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"{param}: {error}", param=param) from None


def shown(found: Recommendation, options: int | None = None) -> dict[str, Any]:
    """As JSON; of the rejections the nearest."""
    document: dict[str, Any] = msgspec.to_builtins(found)
    document["options"] = document["options"][:options]
    document["rejected"] = len(found.rejections)
    document["rejections"] = document["rejections"][:MOST_REJECTIONS]
    for option in (*document["options"], *document["rejections"]):
        option["id"] = "{model}@{tp}x{gpu}/{precision}/{backend}".format(**option["candidate"])
    return document


async def taught(services: ApiServices, org_id: str | None) -> dict[str, Bias] | None:
    """What an organisation's outcomes taught."""
    if services.deployed is None or org_id is None:
        return None
    return await services.deployed.outcomes.store.factors(org_id)
