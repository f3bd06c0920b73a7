"""Rating a stretch of an org's ledger: charges, draws and the state behind them, as one value. Pure.

Invariant: where a stretch is cut makes no difference. Rating from the beginning, with the terms and grants that were
noted down, gives the same charges and draws to the last byte.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from crosslogic.billing.charges.model import Charge
from crosslogic.billing.charges.rate import rate
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.charges.tariff import RatedUsage
from crosslogic.billing.charges.terms import OrgTerms
from crosslogic.billing.credits.draw import draws_for, in_order
from crosslogic.billing.credits.model import Draw, Grant
from crosslogic.pricing.versions import PriceHistory


class Before(msgspec.Struct, frozen=True):
    """What a request was charged before it was corrected, in order."""

    charges: tuple[Charge, ...]
    draws: tuple[Draw, ...]


class Rated(msgspec.Struct, frozen=True):
    charges: list[Charge]
    draws: list[Draw]
    state: RatingState


def rate_batch(
    rows: Iterable[RatedUsage],
    history: PriceHistory,
    terms: Sequence[tuple[int, OrgTerms]],
    grants: Iterable[Grant],
    state: RatingState,
    before: Mapping[str, Before] | None = None,
) -> Rated:
    """`rows` in the order of their `seq`; `terms` with the position behind which they hold, in order.

    `before` has what the requests were charged that are corrected here but began in an earlier stretch. The given state
    stays as it is.
    """
    state = state.copy()
    ordered = in_order(grants)
    known = {request_id: (list(each.charges), list(each.draws)) for request_id, each in (before or {}).items()}
    charges: list[Charge] = []
    draws: list[Draw] = []
    for row in rows:
        earlier, earlier_draws = known.setdefault(row.request_id, ([], []))
        charge = rate(row, history, terms_at(terms, row.seq), state, earlier)
        drawn = draws_for(charge, ordered, state.drawn, earlier, earlier_draws)
        for draw in drawn:
            state.drawn[draw.grant_id] = state.drawn.get(draw.grant_id, 0) + draw.amount
        state.note(charge)
        earlier.append(charge)
        earlier_draws += drawn
        charges.append(charge)
        draws += drawn
    return Rated(charges, draws, state)


def terms_at(terms: Sequence[tuple[int, OrgTerms]], seq: int) -> OrgTerms:
    """Those that hold for the row at `seq`."""
    return next(each for from_seq, each in reversed(terms) if seq > from_seq)
