"""Compares books, given what stands in both. Pure."""

from collections.abc import Iterable, Mapping

from crosslogic.billing.payments.model import Payment, Refund, Settled, Status
from crosslogic.billing.reconciliation.model import Difference, Kind, Repair

Sums = Mapping[str, int]


def sums(kind: Kind, org_id: str, entity: str, ours: Sums, theirs: Sums, cause: str) -> list[Difference]:
    """One difference where any of the sums differs, naming those that do."""
    wrong = [name for name in ours if ours[name] != theirs.get(name, 0)]
    if not wrong:
        return []
    shown = [" ".join(f"{name}={book.get(name, 0)}" for name in wrong) for book in (ours, theirs)]
    return [Difference(kind, org_id, entity, shown[0], shown[1], cause)]


# What a row counts and what its engine counted in that hour differ at the ends of hours, and where streams moved on.
EDGE_TOKENS = 2_000  # of each node
EDGE_SHARE = 0.01
UNBILLED_SHARE = 0.05  # answers left or broken are generated and not billed


def witness(nodes: int, generated: int, billed: int) -> list[Difference]:
    """Engines count all that they generate, so no more may be billed, and not much less."""
    edge = EDGE_TOKENS * nodes + int(EDGE_SHARE * generated)
    if billed > generated + edge:
        cause = "more is billed than the engines generated"
    elif billed + UNBILLED_SHARE * generated + edge < generated:
        cause = "the engines generated more than is billed: others ask them, too, or many answers were left or broken"
    else:
        return []
    return [Difference(Kind.ENGINE_LEDGER, "", f"{nodes} nodes", str(billed), str(generated), cause)]


def payments(org_id: str, ours: Iterable[Payment], there: Iterable[Settled]) -> list[Difference]:
    """Every payment that we hold to have succeeded did so there, over the same amount; and none did that we do not."""
    of_us = {each.id: each for each in ours}
    seen: dict[str, Settled] = {}
    found = []
    for row in there:
        if row.kind != "payment":
            continue
        mine = None if row.our_id is None else of_us.get(row.our_id)
        if mine is not None and row.our_id is not None:
            if row.our_id in seen and row.succeeded and seen[row.our_id].succeeded:
                found.append(_payment(org_id, row.provider_ref, "once", "twice", "captured twice: refund one of them"))
            if row.succeeded or row.our_id not in seen:
                seen[row.our_id] = row
        elif row.succeeded:
            cause = "money was taken there without us"
            found.append(_payment(org_id, row.provider_ref, "nothing", f"{row.amount_minor} {row.currency}", cause))
    for payment in of_us.values():
        found += _of_payment(payment, seen.get(payment.id))
    return found


def _of_payment(payment: Payment, there: Settled | None) -> list[Difference]:
    org_id, succeeded = payment.org_id, payment.status is Status.SUCCEEDED
    if there is None:
        if not succeeded:
            return []
        cause = "the provider does not know it within these days"
        return [_payment(org_id, payment.id, "succeeded", "nothing", cause)]
    if there.succeeded != succeeded:
        cause = "it has failed here, and money was taken there" if there.succeeded else "it did not succeed there"
        shown = "succeeded" if there.succeeded else "not succeeded"
        repair = None if payment.status is Status.FAILED else Repair.LOOK
        if payment.status is Status.FAILED:
            cause += ": refund it at the provider"
        elif not succeeded:
            cause = "its end was not heard of yet"
        return [
            Difference(
                Kind.PAYMENT_PROVIDER,
                org_id,
                payment.id,
                payment.status.value,
                shown,
                cause,
                repair,
                there.provider_ref,
            )
        ]
    if succeeded and (there.amount_minor, there.currency) != (payment.captured_minor, payment.currency):
        ours = f"{payment.captured_minor} {payment.currency}"
        return [_payment(org_id, payment.id, ours, f"{there.amount_minor} {there.currency}", "the amounts differ")]
    return []


def refunds(org_id: str, ours: Iterable[Refund], there: Iterable[Settled]) -> list[Difference]:
    of_us = {each.id: each for each in ours}
    seen: dict[str, Settled] = {}
    found = []
    for row in there:
        if row.kind != "refund":
            continue
        if row.our_id is not None and row.our_id in of_us:
            seen[row.our_id] = row
        elif row.succeeded:
            cause = "money was given back there without us"
            shown = f"{row.amount_minor} {row.currency}"
            found.append(Difference(Kind.REFUND_PROVIDER, org_id, row.provider_ref, "nothing", shown, cause))
    for refund in of_us.values():
        row_there = seen.get(refund.id)
        stands = refund.status in (Status.SUCCEEDED, Status.PENDING)
        there_stands = row_there is not None and row_there.succeeded
        same_amount = row_there is None or row_there.amount_minor == refund.amount_minor
        if stands != there_stands or (stands and not same_amount):
            shown = "nothing" if row_there is None else f"{row_there.amount_minor} {row_there.currency}"
            if row_there is not None and not row_there.succeeded:
                shown = "failed"
            found.append(
                Difference(
                    Kind.REFUND_PROVIDER,
                    org_id,
                    refund.id,
                    f"{refund.status.value} {refund.amount_minor} {refund.currency}",
                    shown,
                    "the refund stands otherwise there",
                    Repair.LOOK if row_there is not None and refund.status is not Status.FAILED else None,
                    None if row_there is None else row_there.provider_ref,
                )
            )
    return found


def _payment(org_id: str, entity: str, ours: str, theirs: str, cause: str) -> Difference:
    return Difference(Kind.PAYMENT_PROVIDER, org_id, entity, ours, theirs, cause)
