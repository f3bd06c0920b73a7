"""The lines of an invoice as a provider's invoice items. Pure.

Invariant: the items sum to what the lines sum to. A line is told as quantity times price only where that is exact to
twelve decimals and comes to the very amount that stands on our invoice.
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

from crosslogic.billing.exports.ports import InvoiceItem
from crosslogic.billing.invoices.model import Line, LineKind

MOST_ITEMS = 250
_PICO_DIGITS = 12
_DECIMALS = Decimal(1).scaleb(-12)
_TOKENS = ("prompt_tokens", "completion_tokens")  # cached ones are among the prompt


def items_of(lines: Sequence[Line], decimals: int) -> tuple[InvoiceItem, ...]:
    """At most 250: of more lines the last ones are told together."""
    shown = [_item(n, line, decimals) for n, line in enumerate(lines, 1)]
    if len(shown) <= MOST_ITEMS:
        return tuple(shown)
    kept, rest = shown[: MOST_ITEMS - 1], shown[MOST_ITEMS - 1 :]
    together = InvoiceItem(MOST_ITEMS, f"{len(rest)} further lines", sum(each.amount_minor for each in rest))
    return (*kept, together)


def _item(n: int, line: Line, decimals: int) -> InvoiceItem:
    plain = InvoiceItem(n, line.description[:400], line.amount_minor)
    quantity = sum(value for name, value in line.quantity.items() if name in _TOKENS)
    if line.kind is not LineKind.USAGE or quantity <= 0 or line.exact_amount <= 0:
        return plain
    exact_minor = Decimal(line.exact_amount).scaleb(decimals - _PICO_DIGITS)
    unit = (exact_minor / quantity).quantize(_DECIMALS)
    told = (unit * quantity).quantize(Decimal(1), rounding=ROUND_HALF_UP)
    if unit * quantity != exact_minor or int(told) != line.amount_minor:
        return plain
    return InvoiceItem(n, plain.description, line.amount_minor, str(quantity), f"{unit:f}")
