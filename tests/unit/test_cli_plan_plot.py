"""Cost against latency on a terminal: what it looks like, how wide it gets, and that it is plain characters."""

import pytest

from crosslogic.cli.plan_plot import NARROWEST, WIDEST, pareto_plot
from crosslogic.compass.capacity.step_model import Evidence
from crosslogic.compass.ranking.model import Candidate, Cost, Figure, Forecast, Option, Sizing
from crosslogic.compass.specification.model import QualityTier
from crosslogic.kernel.money import PUSD_PER_USD


def option(usd: int, e2e_s: float, *, pareto: bool) -> Option:
    figure = Figure(e2e_s * 1000, e2e_s * 900, e2e_s * 1100, Evidence.ESTIMATED)
    month = usd * PUSD_PER_USD
    return Option(
        candidate=Candidate("m", "g", 1, "bf16"),
        quality=QualityTier.STANDARD,
        forecast=Forecast(figure, figure, figure, figure, 0.9),
        sizing=Sizing(1, 1, 0, 1, 1.0, 1.0, 60.0, "itl", 1000, 10, 1.0, simulated=False),
        cost=Cost(month // 730, month, month, None, 1, 1, "rented"),
        score=1.0,
        pareto=pareto,
        reasons=(),
    )


OPTIONS = [option(1000, 5.0, pareto=True), option(2000, 3.0, pareto=True), option(2500, 4.5, pareto=False)]


DRAWN = """\
E2E p95: # Pareto front, o others
     5 s |#
         |
         |
         |                                     o
         |
         |
  3.91 s |
         |
         |
         |
         |
     3 s |                         #
         +--------------------------------------
          1,000                2,500 USD a month
"""


def test_the_front_stands_out_without_colour() -> None:
    assert pareto_plot(OPTIONS, 48) + "\n" == DRAWN


@pytest.mark.parametrize("columns", [NARROWEST, 60, WIDEST, 200])
def test_it_is_no_wider_than_the_terminal_and_than_can_be_read(columns: int) -> None:
    drawn = pareto_plot(OPTIONS, columns)
    assert max(map(len, drawn.splitlines())) <= min(columns, WIDEST)


def test_where_there_is_no_room_or_nothing_to_compare_there_is_none() -> None:
    assert pareto_plot(OPTIONS, NARROWEST - 1) == ""
    assert pareto_plot(OPTIONS[:1], 80) == ""


def test_options_that_are_alike_share_a_place_and_the_front_is_on_top() -> None:
    same = [option(1000, 5.0, pareto=True), option(1000, 5.0, pareto=False)]
    body = pareto_plot(same, 60).splitlines()[1:]
    assert sum(line.count("#") for line in body) == 1
    assert sum(line.count("o") for line in body if "USD" not in line) == 0
