"""Which deployments are worth a look: all of the catalogue that may be chosen and fit, the promising ones first.

Pure. Invariant: what is left out is counted, and where memory or a wish is the reason, said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from crosslogic.catalog.cards import ModelCard, load_cards
from crosslogic.catalog.gpus import GpuType, find_gpu, load_gpus
from crosslogic.compass.capacity.memory import MemoryFit, memory_fit
from crosslogic.compass.capacity.roofline import roofline
from crosslogic.compass.capacity.rows import Load, architecture
from crosslogic.compass.ranking.model import Candidate, Rejection
from crosslogic.compass.specification.model import TIERS, Priority, QualityTier, Specification, UseCase

TENSOR_PARALLEL = (1, 2, 4, 8)
DEFAULT_GPUS = ("l4", "a10g", "l40s", "a100_40", "a100_80", "h100_sxm", "h200_sxm", "b200_sxm", "mi300x")
_CODE = (UseCase.CODE_COMPLETION, UseCase.CODE_GENERATION_DETAILED)
# The least quality where none was asked for.
_LEAST_QUALITY = {
    Priority.ACCURACY: QualityTier.HIGH,
    Priority.LATENCY: QualityTier.STANDARD,
    Priority.COST: QualityTier.BASIC,
    Priority.BALANCED: QualityTier.STANDARD,
}
_MODELS = {Priority.ACCURACY: 6, Priority.LATENCY: 6, Priority.COST: 6, Priority.BALANCED: 8}


class Fitting(msgspec.Struct, frozen=True):
    """A candidate with all that was looked up for it. `promise` is cost by roofline: low is good."""

    candidate: Candidate
    card: ModelCard
    gpu: GpuType
    memory: MemoryFit
    promise: float


def models_for(spec: Specification) -> list[ModelCard]:
    """Models that may be chosen: the wished ones, else those of enough quality and context, one of each family size."""
    wishes = spec.wishes
    longest = spec.context_tokens or longest_request(spec)
    found = []
    for card in load_cards().values():
        if wishes.preferred_models and card.id not in wishes.preferred_models:
            continue
        if card.id in wishes.excluded_models or card.context_window < min(longest, 32_768):
            continue
        if not wishes.preferred_models:
            if tier_of(card) < TIERS.index(spec.quality or _LEAST_QUALITY[spec.priority]):
                continue
            if card.tasks and spec.use_case.value not in card.tasks:
                continue
            if "code" in card.domains and "general" not in card.domains and spec.use_case not in _CODE:
                continue
        found.append(card)
    return found


def tier_of(card: ModelCard) -> int:
    """0 to 3, as `TIERS` has them."""
    return TIERS.index(QualityTier(card.quality))


def longest_request(spec: Specification) -> int:
    """Prompt and answer that must fit: the 99.9th percentile of each."""
    traffic = spec.traffic
    return round(traffic.prompt_tokens.quantile(0.999) + traffic.output_tokens.quantile(0.999))


def precisions(card: ModelCard, gpu: GpuType, wished: Sequence[str]) -> tuple[str, ...]:
    """In which the model runs on this GPU: as published, and with its weights in FP8 where the GPU computes in it."""
    found = [card.dtype]
    if card.dtype in ("bf16", "fp16") and gpu.fp8_tflops:
        found.append("fp8")
    for other in wished:
        if other not in found and card.dtype in ("bf16", "fp16"):
            found.append(other)
    return tuple(each for each in found if not wished or each in wished)


def fitting(
    spec: Specification, per_gpu_hour: Callable[[str], float | None], *, most: int
) -> tuple[list[Fitting], list[Rejection], int]:
    """The most promising candidates that fit, those that do not with the reason, and how many there were in all."""
    wishes = spec.wishes
    longest = spec.context_tokens or longest_request(spec)
    fits: list[Fitting] = []
    rejected: list[Rejection] = []
    considered = 0
    for card in models_for(spec):
        for gpu in _gpus(spec, per_gpu_hour):
            price = per_gpu_hour(gpu.id)
            for precision in precisions(card, gpu, wishes.quantizations):
                for tp in _parallel(gpu, wishes.tensor_parallel):
                    considered += 1
                    candidate = Candidate(card.id, gpu.id, tp, precision)
                    memory = memory_fit(
                        card, gpu, tp, precision, sequence_tokens=_mean_tokens(spec), longest_tokens=longest
                    )
                    if not memory.fits:
                        rejected.append(Rejection(candidate, memory.why))
                    elif wishes.max_gpus is not None and tp > wishes.max_gpus:
                        rejected.append(Rejection(candidate, f"one replica takes {tp} of {wishes.max_gpus} GPUs"))
                    else:
                        promise = _promise(spec, card, gpu, candidate, memory, price or 1.0)
                        fits.append(Fitting(candidate, card, gpu, memory, promise))
    return _promising(fits, spec, most), rejected, considered


def _gpus(spec: Specification, per_gpu_hour: Callable[[str], float | None]) -> Iterable[GpuType]:
    wishes = spec.wishes
    if wishes.preferred_gpus:
        named = (find_gpu(name) for name in wishes.preferred_gpus)
        return [gpu for gpu in named if gpu is not None and gpu.id not in wishes.excluded_gpus]
    known = load_gpus()
    return [
        known[name]
        for name in DEFAULT_GPUS
        if name in known and name not in wishes.excluded_gpus and per_gpu_hour(name) is not None
    ]


def _parallel(gpu: GpuType, wished: int | None) -> tuple[int, ...]:
    if wished is not None:
        return (wished,) if wished <= gpu.max_per_node else ()
    return tuple(tp for tp in TENSOR_PARALLEL if tp <= gpu.max_per_node)


def _mean_tokens(spec: Specification) -> float:
    return spec.traffic.prompt_tokens.mean + spec.traffic.output_tokens.mean / 2


def _promise(
    spec: Specification, card: ModelCard, gpu: GpuType, candidate: Candidate, memory: MemoryFit, price: float
) -> float:
    """USD an hour by roofline at the load where its step takes the target's time; what cannot even so comes last."""
    traffic = spec.traffic
    roof = roofline(architecture(card), gpu, candidate.precision, candidate.tp)
    prompt, output = traffic.prompt_tokens.mean, max(2.0, traffic.output_tokens.mean)
    target_s = (spec.slo.effective_itl_p95_ms(traffic) or 100.0) / 1e3
    most = max(1.0, min(256.0, memory.kv_tokens / (prompt + output / 2)))
    running = 1.0
    while running < most and roof.step_s(Load(running * 2, prompt, output)) < target_s:
        running *= 2
    step = roof.step_s(Load(running, prompt, output))
    late = max(
        1.0, step / target_s, roof.first_token_s(Load(1.0, prompt, output)) * 1e3 / (spec.slo.ttft_p95_ms or 1e9)
    )
    rate = running / (output * step)
    replicas = max(1.0, traffic.peak_qps / rate)
    return price * candidate.tp * replicas * late**4


def _promising(fits: list[Fitting], spec: Specification, most: int) -> list[Fitting]:
    """Of each model its best layouts on different GPUs, and of models as many as the priority lets in."""
    by_model: dict[str, list[Fitting]] = {}
    for each in sorted(fits, key=lambda fit: fit.promise):
        by_model.setdefault(each.candidate.model, []).append(each)
    models = sorted(by_model.values(), key=lambda those: _order(those[0], spec))
    count = len(models) if spec.wishes.preferred_models else _MODELS[spec.priority]
    chosen: list[list[Fitting]] = []
    seen: set[str] = set()
    for those in models:
        shape = architecture(those[0].card).key
        if spec.wishes.preferred_models or shape not in seen:  # a quantised checkpoint is the same model again
            seen.add(shape)
            chosen.append(those)
    chosen = chosen[:count]
    picked: list[Fitting] = []
    for turn in range(most):
        for those in chosen:
            ordered = _spread(those)
            if turn < len(ordered) and len(picked) < most:
                picked.append(ordered[turn])
    return picked


def _spread(those: list[Fitting]) -> list[Fitting]:
    """The best of each GPU first, then the rest, so that a front of cost and latency has something to stand on."""
    first: dict[str, Fitting] = {}
    for each in those:
        first.setdefault(each.candidate.gpu, each)
    heads = list(first.values())
    return heads + [each for each in those if each not in heads]


def _order(fit: Fitting, spec: Specification) -> tuple[float, ...]:
    tier = tier_of(fit.card)
    if spec.priority is Priority.ACCURACY:
        return (-tier, fit.promise)
    if spec.priority is Priority.COST:
        return (fit.promise, -tier)
    return (fit.promise / (1.0 + tier) ** 1.5,)
