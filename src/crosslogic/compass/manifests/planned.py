"""A recommended option as a plan of a deployment. Pure."""

from __future__ import annotations

from crosslogic.catalog.cards import load_cards
from crosslogic.compass.capacity.memory import MEMORY_UTILIZATION
from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.manifests.model import DeploymentPlan, Expected, PlannedForecast, Targets, checked
from crosslogic.compass.ranking.candidates import longest_request
from crosslogic.compass.ranking.model import Figure, Option
from crosslogic.compass.specification.model import Specification
from crosslogic.kernel.errors import InvalidRequest

_CONTEXT_STEP = 1024
_ENGINE_QUANTIZES = {"fp8": "fp8", "int4": "bitsandbytes"}  # of a checkpoint in 16 bits, as it is loaded


def plan_of(option: Option, spec: Specification, *, name: str, org_id: str, tenant: str) -> DeploymentPlan:
    """Raises InvalidRequest where the engine cannot run it so, or no cluster can."""
    candidate, sizing, cost, forecast = option.candidate, option.sizing, option.cost, option.forecast
    if candidate.backend != "vllm":
        raise InvalidRequest(f"manifests are for vLLM; this option is for {candidate.backend}")
    card = load_cards().get(candidate.model)
    longest = spec.context_tokens or longest_request(spec)
    context = -(-longest // _CONTEXT_STEP) * _CONTEXT_STEP
    return checked(
        DeploymentPlan(
            name=name,
            org_id=org_id,
            tenant=tenant,
            model=candidate.model,
            gpu_type=candidate.gpu,
            configuration=candidate.id,
            precision=candidate.precision,
            quantization=_quantization(candidate.precision, candidate.precision if card is None else card.dtype),
            gpus_per_replica=candidate.tp,
            tensor_parallel=candidate.tp,
            min_replicas=min(sizing.replicas_at_mean, sizing.replicas),
            max_replicas=sizing.replicas,
            max_model_len=context if card is None else min(context, card.context_window),
            gpu_memory_utilization=MEMORY_UTILIZATION,
            max_num_seqs=ReplicaLimits(sizing.kv_tokens).max_num_seqs,
            slo=Targets(spec.slo.ttft_p95_ms, spec.slo.itl_p95_ms, spec.slo.e2e_p95_ms),
            forecast=PlannedForecast(
                ttft_p95_ms=_expected(forecast.ttft_p95),
                itl_p95_ms=_expected(forecast.itl_p95),
                e2e_p95_ms=_expected(forecast.e2e_p95),
                tokens_per_s=_expected(forecast.tokens_per_s),
                evidence=forecast.ttft_p95.evidence.value,
            ),
            rate_per_replica=sizing.rate_per_replica,
            scale_out_at=sizing.scale_out_at,
            running_at_peak=sizing.running,
            kv_tokens=sizing.kv_tokens,
            startup_s=sizing.startup_s,
            cost_per_hour_pusd=cost.per_hour_pusd,
            cost_per_month_pusd=cost.per_month_pusd,
        )
    )


def _quantization(precision: str, published: str) -> str | None:
    if precision == published:
        return None
    if precision in ("bf16", "fp16"):
        return None
    if precision not in _ENGINE_QUANTIZES:
        raise InvalidRequest(
            f"vLLM cannot load a {published} checkpoint as {precision}; name a checkpoint that was made in it"
        )
    return _ENGINE_QUANTIZES[precision]


def _expected(figure: Figure) -> Expected:
    return Expected(figure.value, figure.low, figure.high)
