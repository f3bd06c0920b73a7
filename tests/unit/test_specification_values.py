"""Latency targets of a specification: which binds, and what it leaves for each token."""

import pytest

from crosslogic.compass.specification.lengths import Bin, Lengths, fixed, lengths_of, scaled
from crosslogic.compass.specification.model import Slo, TrafficProfile
from crosslogic.kernel.errors import InvalidRequest


def _traffic(prompt: int, output: int) -> TrafficProfile:
    return TrafficProfile(fixed(prompt), fixed(output), mean_qps=1.0, peak_qps=2.0)


@pytest.mark.parametrize(
    ("output", "ttft_ms", "itl_ms", "e2e_ms", "binds"),
    [
        (256, 150, 25, 7000, False),  # a chatbot
        (256, 100, 20, 5000, True),  # code completion: 100 + 255 x 20 = 5,200 ms
        (1024, 300, 30, 25_000, True),
        (1024, 400, 35, 35_000, True),
        (1024, 500, 35, 40_000, False),
        (512, 600, 30, 18_000, False),
        (1536, 1000, 40, 60_000, True),
        (1536, 2000, 45, 90_000, False),
    ],
)
def test_end_to_end_binds_where_the_documents_contradict_themselves(
    output: int, ttft_ms: float, itl_ms: float, e2e_ms: float, binds: bool
) -> None:
    traffic, slo = _traffic(512, output), Slo(ttft_ms, itl_ms, e2e_ms, e2e_output_tokens=output)
    effective = slo.effective_itl_p95_ms(traffic)
    assert effective is not None
    assert slo.e2e_binds(traffic) is binds
    assert ttft_ms + (output - 1) * effective <= e2e_ms + 1e-6
    assert effective <= itl_ms


def test_longer_answers_may_take_longer_where_the_target_names_a_length() -> None:
    slo = Slo(ttft_p95_ms=100, e2e_p95_ms=5100, e2e_output_tokens=251)
    assert slo.e2e_limit_ms(251) == pytest.approx(5100)
    assert slo.e2e_limit_ms(501) == pytest.approx(10_100)
    assert Slo(e2e_p95_ms=5000).e2e_limit_ms(501) == 5000


def test_without_targets_nothing_binds() -> None:
    assert Slo().effective_itl_p95_ms(_traffic(512, 256)) is None
    assert Slo(itl_p95_ms=20).effective_itl_p95_ms(_traffic(512, 256)) == 20


def test_lengths_of_a_histogram() -> None:
    lengths = lengths_of([Bin(0, 100, 3), Bin(100, 200, 1)])
    assert lengths.mean == pytest.approx(0.75 * 49.5 + 0.25 * 149.5)
    assert lengths.quantile(0.75) == pytest.approx(99)
    assert 100 <= lengths.p95 < 200


def test_lengths_without_a_histogram_are_log_normal_with_mean_and_95th_percentile_as_said() -> None:
    lengths = Lengths(mean=250, p95=700)
    sample = [lengths.quantile((i + 0.5) / 20_000) for i in range(20_000)]
    assert sum(sample) / len(sample) == pytest.approx(250, rel=0.01)
    assert sorted(sample)[19_000] == pytest.approx(700, rel=0.01)


def test_a_shape_scaled_to_another_mean_keeps_its_proportions() -> None:
    doubled = scaled(lengths_of([Bin(0, 100, 0.5), Bin(100, 200, 0.5)]), 200)
    assert doubled.mean == 200
    assert doubled.quantile(0.5) == pytest.approx(2 * 99, rel=0.05)


@pytest.mark.parametrize("bins", [[], [Bin(0, 0, 1)], [Bin(10, 20, 1), Bin(15, 30, 1)], [Bin(0, 10, 0)]])
def test_what_is_no_histogram_is_refused(bins: list[Bin]) -> None:
    with pytest.raises(InvalidRequest):
        lengths_of(bins)
