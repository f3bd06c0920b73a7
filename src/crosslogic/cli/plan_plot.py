"""Cost against latency as characters, for `crosslogic plan` on a terminal. Pure.

Invariant: plain characters without colour codes, no wider than asked, so that a log or a screen reader can take it.
"""

from collections.abc import Sequence

from crosslogic.compass.ranking.model import Option
from crosslogic.kernel.money import PUSD_PER_USD

WIDEST, _ROWS = 72, 12
NARROWEST = 40  # columns; below, axes leave no room for points
_EDGE = 8  # columns of the figures on the left
_FRONT, _OTHER = "#", "o"


def pareto_plot(options: Sequence[Option], columns: int) -> str:
    """The end of answers over USD a month; "#" is what nothing beats in all aims. Empty where there is no room."""
    if len(options) < 2 or columns < NARROWEST:
        return ""
    width = min(columns, WIDEST) - _EDGE - 2
    usd = [option.cost.per_month_pusd / PUSD_PER_USD for option in options]
    seconds = [option.forecast.e2e_p95.value / 1000 for option in options]
    canvas = [[" "] * width for _ in range(_ROWS)]
    # The front is drawn last, so that none of it is hidden.
    for place in sorted(range(len(options)), key=lambda each: options[each].pareto):
        column = round(_share(usd[place], usd) * (width - 1))
        row = round((1 - _share(seconds[place], seconds)) * (_ROWS - 1))
        canvas[row][column] = _FRONT if options[place].pareto else _OTHER
    lines = [f"E2E p95: {_FRONT} Pareto front, {_OTHER} others"]
    for number, cells in enumerate(canvas):
        here = max(seconds) - (max(seconds) - min(seconds)) * number / (_ROWS - 1)
        figure = f"{here:.3g} s" if number in (0, _ROWS // 2, _ROWS - 1) else ""
        lines.append(f"{figure:>{_EDGE}} |{''.join(cells)}".rstrip())
    low, high = f"{min(usd):,.0f}", f"{max(usd):,.0f} USD a month"
    lines.append(" " * (_EDGE + 1) + "+" + "-" * width)
    lines.append(" " * (_EDGE + 2) + low + " " * max(1, width - len(low) - len(high)) + high)
    return "\n".join(lines)


def _share(value: float, values: Sequence[float]) -> float:
    low, high = min(values), max(values)
    return 0.5 if high == low else (value - low) / (high - low)
