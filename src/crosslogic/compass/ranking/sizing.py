"""How many replicas a candidate needs, and what its requests will see (planner notes §4).

Pure. The surface finds the number; where asked, the virtual-time scheduler confirms it with the real lengths and
bursts, and adds replicas while a target is missed. Spare replicas follow from availability, not from a flat margin.
"""

from __future__ import annotations

from functools import cache
from math import exp, inf, isinf, lgamma, log, sqrt
from statistics import NormalDist

import msgspec

from crosslogic.compass.capacity.intervals import stretch
from crosslogic.compass.capacity.load import Requests, requests, thinned_cv
from crosslogic.compass.capacity.step_model import StepModel
from crosslogic.compass.capacity.surface import Curve, Traffic, curve, most_running, rate_within
from crosslogic.compass.capacity.surface import at_rate as read_off
from crosslogic.compass.capacity.targets import LEAST_REQUESTS, at_rate, meets
from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.ranking.model import Figure, Forecast, Sizing
from crosslogic.compass.ranking.offers import HOURS_PER_MONTH, SPOT_INTERRUPTED_PER_MONTH
from crosslogic.compass.specification.model import ExperienceClass, Market, Slo, Specification, TrafficProfile

MOST_REPLICAS = 4096
SIMULATED_REPLICAS = 8  # more are a cluster in proportion
IMAGE_S = 60.0  # pull and start of the engine
WEIGHTS_BYTES_PER_S = 2e9
JUMP = 0.75  # a rise within ten minutes that one in a hundred exceeds (planner notes §6)
FAILURES_PER_MONTH = 0.1  # of a replica that is not on spot
REPLACEMENT_S = 600.0  # until a lost machine is had again, start of the engine aside
_NORMAL = NormalDist()


class Found(msgspec.Struct, frozen=True):
    """A size that meets all targets."""

    sizing: Sizing
    forecast: Forecast


class Missed(msgspec.Struct, frozen=True):
    """No number of replicas meets them: what is missed even by a lone request."""

    target: str
    value_ms: float
    limit_ms: float

    @property
    def times(self) -> float:
        return self.value_ms / self.limit_ms if self.limit_ms else inf


def size(
    model: StepModel,
    limits: ReplicaLimits,
    spec: Specification,
    *,
    startup_s: float,
    simulated: bool,
    taken_back: float = SPOT_INTERRUPTED_PER_MONTH,
) -> Found | Missed:
    """The smallest number of replicas that carries the peak within all targets, and its spare ones.

    `taken_back`: the share of spot machines that are, in a month.
    """
    traffic = spec.traffic
    slo = surface_targets(spec.slo, traffic)
    needed, line, rate, binding = _needed(model, limits, traffic, slo)
    if not needed:
        return _missed(line, spec.slo, slo)
    confirmed = _confirmed(model, limits, spec, needed) if simulated else None
    if confirmed is None:
        foreseen = _read_off(model, line, traffic, slo, needed)
    else:
        needed, foreseen = confirmed
        rate = max(rate, traffic.peak_qps / needed)
    spare = spare_replicas(needed, spec, startup_s, taken_back)
    at_mean, *_ = _needed(model, limits, msgspec.structs.replace(traffic, peak_qps=traffic.mean_qps), slo)
    sizing = Sizing(
        replicas=needed + spare,
        needed=needed,
        spare=spare,
        replicas_at_mean=min(needed, max(1, at_mean)) + spare,
        rate_per_replica=rate,
        scale_out_at=rate / (1 + JUMP * min(1.0, startup_s / 600)),
        startup_s=startup_s,
        binding=binding,
        kv_tokens=limits.kv_tokens,
        most_running=most_running(limits, traffic.prompt_tokens.mean, traffic.output_tokens.mean),
        # the scheduler may let a replica carry a little more than the last rate of the surface
        running=read_off(line.running_mean, line, min(traffic.peak_qps / needed, float(line.rates[-1]))),
        simulated=simulated,
    )
    return Found(sizing, foreseen)


def startup_s(weight_bytes: float, tp: int) -> float:
    """From the order to the first request: image, engine, and weights onto all GPUs."""
    return IMAGE_S + weight_bytes / WEIGHTS_BYTES_PER_S + (10.0 if tp > 1 else 0.0)


def spare_replicas(
    needed: int, spec: Specification, start_s: float, taken_back: float = SPOT_INTERRUPTED_PER_MONTH
) -> int:
    """So many more that the peak's replicas are up for the share of time that was asked for; one at least.

    Batch work may wait for a replica to come back.
    """
    if spec.experience is ExperienceClass.BATCH or spec.availability < 0.99:
        return 0
    lost = max(taken_back, FAILURES_PER_MONTH) if spec.market is Market.SPOT else FAILURES_PER_MONTH
    down_s = start_s + (3 * REPLACEMENT_S if spec.market is Market.SPOT else REPLACEMENT_S)
    losses = -log(1 - lost)
    down = losses * down_s / (HOURS_PER_MONTH * 3600)
    spare = 1
    while _share_up(needed, needed + spare, 1 - down) < spec.availability and spare < needed + 8:
        spare += 1
    return spare


def surface_targets(slo: Slo, traffic: TrafficProfile) -> Slo:
    """The same targets without ones that go with each answer's length, which an ITL says as well."""
    if slo.e2e_output_tokens is None:
        return slo
    itl = slo.effective_itl_p95_ms(traffic)
    return Slo(slo.ttft_p95_ms, itl, None)


def traffic_of(traffic: TrafficProfile, replicas: int) -> Traffic:
    """What one of so many replicas sees."""
    prompt = traffic.prompt_tokens.mean
    return Traffic(
        prompt_tokens=prompt,
        prefill_tokens=max(1.0, prompt * (1 - traffic.prefix_hit_rate)),
        output_tokens=traffic.output_tokens.mean,
        output_p95=traffic.output_tokens.p95,
        cv=thinned_cv(traffic.burstiness_cv, replicas),
    )


def likelihood(value: float, limit: float | None, deviation: float) -> float:
    """How likely a log-normal figure of this median stays within its limit."""
    if limit is None:
        return 1.0
    if value <= 0 or limit <= 0:
        return float(value <= limit)
    return _NORMAL.cdf(log(limit / value) / max(1e-6, deviation))


def _needed(
    model: StepModel, limits: ReplicaLimits, traffic: TrafficProfile, slo: Slo
) -> tuple[int, Curve, float, str]:
    """The smallest number for which each one's rate is within all targets; 0 where there is none."""
    count = 1
    line, rate, binding = _line(model, limits, traffic, slo, 1)
    while rate and traffic.peak_qps > rate * count:
        # Burstiness falls as replicas are added, so the next guess may be a little high, never by much.
        after = max(count + 1, int(traffic.peak_qps / rate * 0.97))
        if after > MOST_REPLICAS:
            return 0, line, rate, "replicas"
        count = after
        line, rate, binding = _line(model, limits, traffic, slo, count)
    return (count if rate else 0), line, rate, binding


def _line(
    model: StepModel, limits: ReplicaLimits, traffic: TrafficProfile, slo: Slo, count: int
) -> tuple[Curve, float, str]:
    line = curve(model, limits, traffic_of(traffic, count))
    rates = {"throughput": float(line.rates[-1])}
    for name, figure, target in (
        ("ttft", line.ttft_p95, slo.ttft_p95_ms),
        ("itl", line.itl_p95, slo.itl_p95_ms),
        ("e2e", line.e2e_p95, slo.e2e_p95_ms),
    ):
        if target is not None:
            rates[name] = rate_within(figure, line, target / 1e3)
    binding = min(rates, key=lambda name: rates[name])
    return line, rates[binding], binding


def _missed(line: Curve, asked: Slo, slo: Slo) -> Missed:
    """By how much the worst target is missed by a request that is nearly alone."""
    figures = [
        ("ttft", line.ttft_p95[0], slo.ttft_p95_ms),
        ("itl", line.itl_p95[0], slo.itl_p95_ms),
        ("e2e", line.e2e_p95[0], slo.e2e_p95_ms),
    ]
    misses = [Missed(name, float(value) * 1e3, target) for name, value, target in figures if target is not None]
    if not misses or max(each.times for each in misses) <= 1:
        return Missed("replicas", MOST_REPLICAS + 1, MOST_REPLICAS)
    worst = max(misses, key=lambda each: each.times)
    if worst.target == "itl" and asked.itl_p95_ms is not None and worst.value_ms <= asked.itl_p95_ms:
        return Missed("e2e", asked.e2e_p95_ms * worst.times, asked.e2e_p95_ms) if asked.e2e_p95_ms else worst
    return worst


def _read_off(model: StepModel, line: Curve, traffic: TrafficProfile, slo: Slo, count: int) -> Forecast:
    rate = traffic.peak_qps / count
    ttft, itl, e2e = (read_off(figure, line, rate) for figure in (line.ttft_p95, line.itl_p95, line.e2e_p95))
    return forecast(model, traffic, slo, ttft * 1e3, itl * 1e3, e2e * 1e3)


def forecast(
    model: StepModel, traffic: TrafficProfile, slo: Slo, ttft_ms: float, itl_ms: float, e2e_ms: float
) -> Forecast:
    """Figures with their intervals, and how likely all targets are met, errors of ITL and TTFT taken as independent."""
    itl_sd = model.itl_deviation
    ttft_sd = model.ttft_deviation
    share = min(1.0, ttft_ms / e2e_ms) if e2e_ms and not isinf(e2e_ms) else 1.0
    e2e_sd = sqrt((share * ttft_sd) ** 2 + ((1 - share) * itl_sd) ** 2)
    itl_limit = slo.itl_p95_ms
    likely = likelihood(ttft_ms, slo.ttft_p95_ms, ttft_sd) * likelihood(itl_ms, itl_limit, itl_sd)
    if slo.e2e_p95_ms is not None:
        likely = min(likely, likelihood(e2e_ms, slo.e2e_p95_ms, e2e_sd))
    tokens = traffic.peak_qps * (traffic.prompt_tokens.mean + traffic.output_tokens.mean)
    return Forecast(
        ttft_p95=_figure(model, "ttft", ttft_ms, ttft_sd),
        itl_p95=_figure(model, "itl", itl_ms, itl_sd),
        e2e_p95=_figure(model, "itl", e2e_ms, e2e_sd),
        tokens_per_s=Figure(tokens, tokens, tokens, model.evidence, "tokens/s"),
        likely=likely,
    )


def _figure(model: StepModel, kind: str, value_ms: float, deviation: float) -> Figure:
    factor = exp(stretch(model.evidence, kind) * deviation)
    return Figure(value_ms, value_ms / factor, value_ms * factor, model.evidence)


def _confirmed(
    model: StepModel, limits: ReplicaLimits, spec: Specification, needed: int
) -> tuple[int, Forecast] | None:
    """The number that the scheduler itself confirms, a few up or down of what the surface said; None: none near."""
    traffic = spec.traffic
    slo = surface_targets(spec.slo, traffic)

    def confirmed(count: int) -> Forecast | None:
        few = min(count, SIMULATED_REPLICAS)
        cv = traffic.burstiness_cv if few == count else thinned_cv(traffic.burstiness_cv, count // few)
        load = _requests(traffic, cv, max(LEAST_REQUESTS, 400 * few))
        observed = at_rate(model, limits, load, traffic.peak_qps * few / count, spec.slo, few)
        if not meets(observed, spec.slo):
            return None
        return forecast(model, traffic, slo, observed.ttft_p95_ms, observed.itl_p95_ms, observed.e2e_p95_ms)

    found = confirmed(needed)
    step = max(1, needed // 16)
    if found is not None:
        for _ in range(3):
            fewer = needed - step
            better = confirmed(fewer) if fewer >= 1 else None
            if better is None:
                break
            needed, found = fewer, better
        return needed, found
    for _ in range(4):
        needed += step
        found = confirmed(needed)
        if found is not None:
            return needed, found
    return None


@cache
def _requests(traffic: TrafficProfile, cv: float, count: int) -> Requests:
    return requests(
        count, traffic.prompt_tokens, traffic.output_tokens, cv=cv, prefix_hit_rate=traffic.prefix_hit_rate, seed=11
    )


def _share_up(needed: int, replicas: int, up: float) -> float:
    """The share of time in which at least so many of all replicas are up, each on its own."""
    down = 1 - up
    if down <= 0:
        return 1.0
    all_up = replicas * log(up)
    return sum(
        exp(lgamma(replicas + 1) - lgamma(lost + 1) - lgamma(replicas - lost + 1) + lost * log(down / up) + all_up)
        for lost in range(replicas - needed + 1)
    )
