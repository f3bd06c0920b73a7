"""From users to requests: what a use case's users send, on average and at the peak, and how it is spread. Pure.

Invariant: what is told wins over what is derived, the rate over the users; a peak is never below the mean.
"""

import msgspec

from crosslogic.compass.specification.lengths import Lengths, scaled
from crosslogic.compass.specification.model import TrafficProfile
from crosslogic.compass.specification.templates import Template
from crosslogic.compass.traffic.shapes import BURSTINESS, shape

DEFAULT_USERS = 100


class Demand(msgspec.Struct, frozen=True):
    """What is told of the traffic; None: not told. Lengths are in tokens."""

    users: int | None = None  # who may use it
    concurrent_users: int | None = None  # who do so at the same time
    active_share: float | None = None
    mean_qps: float | None = None
    peak_qps: float | None = None
    peak_over_mean: float | None = None
    requests_per_user_day: float | None = None
    requests_per_active_user_minute: float | None = None
    prompt_mean: float | None = None
    prompt_p95: float | None = None
    output_mean: float | None = None
    output_p95: float | None = None
    burstiness: str | None = None  # a word of `BURSTINESS`
    prefix_hit_rate: float | None = None


_DAY_BUSY_HOURS = 10.0  # a day's requests of people at work fall into so many hours


def traffic_of(template: Template, told: Demand) -> TrafficProfile:
    """The traffic of a use case, as far as it is not told with its usual figures; `basis` says which are which."""
    mean, peak, basis = _rates(template, told)
    prompt, prompt_basis = _prompt(template, told)
    output, output_basis = _output(template, told)
    bursts = shape(BURSTINESS.get(told.burstiness or "", template.burstiness_shape))
    return TrafficProfile(
        prompt_tokens=prompt,
        output_tokens=output,
        mean_qps=mean,
        peak_qps=peak,
        burstiness_cv=bursts.burstiness_cv,
        prefix_hit_rate=told.prefix_hit_rate or 0.0,
        basis=(basis, prompt_basis, output_basis, f"burstiness as in {_name(bursts.source)}"),
    )


def _rates(template: Template, told: Demand) -> tuple[float, float, str]:
    mean, basis = _mean(template, told)
    ratio = told.peak_over_mean
    if ratio is None and told.burstiness == "diurnal":
        ratio = shape(BURSTINESS["diurnal"]).peak_over_mean
    if told.peak_qps is not None:
        if told.mean_qps is None and not _users_told(told):
            usual = template.peak_over_mean if ratio is None else ratio
            mean, basis = told.peak_qps / max(1.0, usual), f"a peak of {told.peak_qps:g} requests/s as told"
        return min(mean, told.peak_qps), told.peak_qps, basis
    ratio = template.peak_over_mean if ratio is None else ratio
    return mean, mean * max(1.0, ratio), f"{basis}; peaks {max(1.0, ratio):g} times the mean"


def _users_told(told: Demand) -> bool:
    return told.users is not None or told.concurrent_users is not None


def _mean(template: Template, told: Demand) -> tuple[float, str]:
    if told.mean_qps is not None:
        return told.mean_qps, f"{told.mean_qps:g} requests/s as told"
    if told.requests_per_user_day is not None and told.users is not None:
        mean = told.users * told.requests_per_user_day / (_DAY_BUSY_HOURS * 3600)
        return mean, (
            f"{told.users:,} users with {told.requests_per_user_day:g} requests a day each, "
            f"over {_DAY_BUSY_HOURS:g} busy hours"
        )
    rate = told.requests_per_active_user_minute or template.requests_per_active_user_minute
    if told.concurrent_users is not None:
        mean = told.concurrent_users * rate / 60
        return mean, f"{told.concurrent_users:,} users at the same time, {rate:g} requests a minute each"
    users = told.users if told.users is not None else DEFAULT_USERS
    share = template.active_share if told.active_share is None else told.active_share
    assumed = "" if told.users is not None else " (assumed)"
    return users * share * rate / 60, (
        f"{users:,} users{assumed}, {share:.0%} of them active, {rate:g} requests a minute each"
    )


def _prompt(template: Template, told: Demand) -> tuple[Lengths, str]:
    mean = told.prompt_mean or float(template.prompt_tokens)
    whose = "as told" if told.prompt_mean else "of the use case"
    if told.prompt_p95 is not None:
        return Lengths(mean, max(mean, told.prompt_p95)), f"prompts of {mean:g} tokens {whose}, 95th percentile as told"
    if template.prompt_shape is None:
        spread = template.prompt_p95_over_mean
        return Lengths(
            mean, mean * spread
        ), f"prompts of {mean:g} tokens {whose}, 95th percentile {spread:g} times that"
    source = shape(template.prompt_shape)
    return scaled(
        source.prompt_tokens, mean
    ), f"prompts of {mean:g} tokens {whose}, spread as in {_name(source.source)}"


def _output(template: Template, told: Demand) -> tuple[Lengths, str]:
    mean = told.output_mean or float(template.output_tokens)
    whose = "as told" if told.output_mean else "of the use case"
    if told.output_p95 is not None:
        return Lengths(mean, max(mean, told.output_p95)), f"answers of {mean:g} tokens {whose}, 95th percentile as told"
    source = shape(template.output_shape)
    return scaled(
        source.output_tokens, mean
    ), f"answers of {mean:g} tokens {whose}, spread as in {_name(source.source)}"


def _name(source: str) -> str:
    return source.split(",", 1)[0]
