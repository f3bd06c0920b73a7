"""How long to wait before trying again. Pure.

Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015): a whole fleet that lost its control at one
moment does not come back at one moment.
"""

FIRST_S = 0.5
LONGEST_S = 15.0


def pause_s(failures: int, chance: float, *, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> float:
    """After `failures` in a row (at least 1); `chance` from 0 to 1 spreads the pause.

    Never under a tenth of the longest that it could be, so that nobody hammers.
    """
    ceiling_s = min(longest_s, first_s * 2.0 ** min(failures - 1, 32))
    return ceiling_s * (0.1 + 0.9 * chance)
