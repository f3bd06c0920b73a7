"""What a correction takes back of a request: lines of its earlier charges, the last ones first. Pure.

Invariant: no more is ever given back of a line than it was, in quantity as in each amount; and whoever takes back all
of it gets exactly what it was.
"""

from collections.abc import Iterable, Sequence

import msgspec

from crosslogic.billing.charges.model import Charge, ChargeLine, Item


def taken_back(earlier: Sequence[Charge], item: Item, quantity: int) -> Iterable[ChargeLine]:
    """Lines below zero for `quantity` of an item, or for as much as there is."""
    standing: list[ChargeLine] = []
    for charge in earlier:
        for line in charge.terms.lines:
            if line.item is item:
                _stand(standing, line)
    for line in reversed(standing):
        part = min(quantity, line.quantity)
        if part <= 0:
            return
        quantity -= part
        yield _part(line, -part)


def _stand(standing: list[ChargeLine], line: ChargeLine) -> None:
    """Add a line, or let one below zero take its part of the last."""
    if line.quantity > 0:
        standing.append(line)
        return
    last = standing.pop()
    if last.quantity + line.quantity > 0:
        standing.append(_sum(last, line))


def _part(line: ChargeLine, quantity: int) -> ChargeLine:
    """So much of a line (`quantity` is below zero), with its share of each reduction."""
    left = line.quantity + quantity
    reductions = tuple(
        msgspec.structs.replace(each, amount=each.amount * left // line.quantity - each.amount)
        for each in line.reductions
    )
    return msgspec.structs.replace(
        line,
        quantity=quantity,
        list_amount=quantity * line.unit_price,
        discount_amount=sum(each.amount for each in reductions),
        reductions=reductions,
    )


def _sum(line: ChargeLine, taken: ChargeLine) -> ChargeLine:
    return msgspec.structs.replace(
        line,
        quantity=line.quantity + taken.quantity,
        list_amount=line.list_amount + taken.list_amount,
        discount_amount=line.discount_amount + taken.discount_amount,
        reductions=tuple(
            msgspec.structs.replace(one, amount=one.amount + other.amount)
            for one, other in zip(line.reductions, taken.reductions, strict=True)
        ),
    )
