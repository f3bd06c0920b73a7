"""A request log of one's own becomes a traffic profile."""

import json
import random

import pytest

from crosslogic.compass.traffic.observed import observe
from crosslogic.compass.traffic.shapes import shapes
from crosslogic.kernel.errors import InvalidRequest


def _csv(rows: list[tuple[object, int, int]], header: str = "timestamp,prompt_tokens,output_tokens") -> list[str]:
    return [header, *(f"{at},{prompt},{output}" for at, prompt, output in rows)]


REGULAR: list[tuple[object, int, int]] = [(i * 0.5, 100, 50) for i in range(1200)]


def test_rates_and_lengths_are_those_of_the_rows() -> None:
    found = observe(_csv(REGULAR))
    assert found.requests == 1200
    assert found.mean_qps == pytest.approx(2.0)
    assert found.peak_qps == pytest.approx(2.0, rel=0.01)
    assert found.burstiness_cv == pytest.approx(0.0, abs=1e-6)
    assert found.prompt_tokens.mean == pytest.approx(100, rel=0.1)
    assert found.output_tokens.p95 == pytest.approx(50, rel=0.2)
    assert "1200 requests" in found.profile("a.csv").basis[0]


def test_poisson_arrivals_have_a_burstiness_of_one_and_bursts_a_higher() -> None:
    source = random.Random(7)
    at, poisson = 0.0, []
    for _ in range(6000):
        at += source.expovariate(5.0)
        poisson.append((at, 10, 10))
    at, bursts = 0.0, []
    for _ in range(1500):
        at += source.expovariate(1.25)
        bursts += [(at + 0.001 * i, 10, 10) for i in range(4)]
    assert observe(_csv(list(poisson))).burstiness_cv == pytest.approx(1.0, abs=0.08)
    assert observe(_csv(list(bursts))).burstiness_cv > 1.8


def test_the_slow_change_of_a_day_is_a_peak_and_no_burst() -> None:
    source = random.Random(3)
    at, rows = 0.0, []
    while at < 7200:
        at += source.expovariate(1.0 if at < 3600 else 6.0)
        rows.append((at, 10, 10))
    found = observe(_csv(list(rows)))
    assert found.burstiness_cv == pytest.approx(1.0, abs=0.12)
    assert found.peak_qps / found.mean_qps > 1.5


@pytest.mark.parametrize(
    "times",
    [
        [f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}.1234567Z" for i in range(100)],
        [f"2026-01-01 00:{i // 60:02d}:{i % 60:02d}" for i in range(100)],
        [1_767_225_600 + i for i in range(100)],
        [(1_767_225_600 + i) * 1000 for i in range(100)],
        [(1_767_225_600 + i) * 10**9 for i in range(100)],
        list(range(100)),
    ],
)
def test_times_of_any_usual_form(times: list[object]) -> None:
    assert observe(_csv([(at, 5, 5) for at in times])).mean_qps == pytest.approx(1.0)


def test_json_lines_and_the_names_of_other_tools() -> None:
    lines = [json.dumps({"ts": i, "input_tokens": 5, "completion_tokens": 7, "model": "x"}) for i in range(50)]
    assert observe(lines).requests == 50
    assert observe(_csv([(i, 5, 7) for i in range(50)], "TIMESTAMP,ContextTokens,GeneratedTokens")).requests == 50


def test_order_does_not_matter() -> None:
    shuffled = list(REGULAR)
    random.Random(1).shuffle(shuffled)
    assert observe(_csv(shuffled)) == observe(_csv(REGULAR))


def test_few_bad_rows_are_told_and_many_refused() -> None:
    found = observe([*_csv(REGULAR), "soon,1,1", "5,-1,1", "6"])
    assert found.bad_count == 3
    assert [bad.line for bad in found.bad_rows] == [1202, 1203, 1204]
    with pytest.raises(InvalidRequest, match="cannot be read: line 1202 its time 'soon' is none"):
        observe([*_csv(REGULAR), *["soon,1,1"] * 100])


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "empty"),
        (["a,b,c", "1,2,3"], "no column of time"),
        (["time,prompt_tokens", "1,2"], "no column of output tokens"),
        (_csv(REGULAR[:5]), "20 are the least"),
        (_csv([(1, 5, 5)] * 50), "same moment"),
        (["{}"] * 50, "has no time and no prompt tokens and no output tokens"),
    ],
)
def test_what_is_no_log_is_refused_with_its_reason(lines: list[str], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        observe(lines)


def test_packaged_shapes_name_their_source_and_licence() -> None:
    for name, shape in shapes().items():
        assert shape.licence in ("CC-BY-4.0", "Apache-2.0"), name
        assert "commit" in shape.source
        assert shape.prompt_tokens.p95 > shape.prompt_tokens.mean
        assert sum(share for _, _, share in shape.output) == pytest.approx(1.0, abs=1e-4)
