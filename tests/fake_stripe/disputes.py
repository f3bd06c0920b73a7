"""Disputes of charges: what payers' banks do, and how Stripe moves money for it."""

from typing import Any

from tests.fake_stripe.state import Obj, State, page


class Disputes:
    def __init__(self, state: State) -> None:
        self.state = state

    # what happens outside of the API, in a bank

    def open(self, intent_ref: str, amount: int | None = None, *, inquiry: bool = False) -> str:
        """The payer disputes a charge; unless it is an inquiry, the money is withdrawn at once."""
        intent = self.state.get("payment_intent", intent_ref)
        charge = self.state.get("charge", intent["latest_charge"])
        dispute = self.state.make(
            "dispute",
            amount=amount or charge["amount_captured"] - charge["amount_refunded"],
            currency=charge["currency"],
            charge=charge["id"],
            payment_intent=intent["id"],
            reason="fraudulent",
            status="warning_needs_response" if inquiry else "needs_response",
            balance_transactions=[],
        )
        dispute["evidence_details"]["due_by"] = int(self.state.now_s) + 7 * 86400
        charge["disputed"] = True
        self.state.tell("charge.dispute.created", dispute)
        if not inquiry:
            self._move_money(dispute, -dispute["amount"])
        return str(dispute["id"])

    def escalate(self, ref: str) -> None:
        """What began as an inquiry becomes a chargeback."""
        dispute = self.state.get("dispute", ref)
        dispute["status"] = "needs_response"
        self.state.tell("charge.dispute.updated", dispute)
        self._move_money(dispute, -dispute["amount"])

    def review(self, ref: str) -> None:
        dispute = self.state.get("dispute", ref)
        dispute["status"] = "under_review"
        self.state.tell("charge.dispute.updated", dispute)

    def decide(self, ref: str, *, won: bool, reinstate: bool = True) -> None:
        """The bank has decided; what was withdrawn of one that is won may come back later than the word."""
        dispute = self.state.get("dispute", ref)
        dispute["status"] = "won" if won else "lost"
        self.state.tell("charge.dispute.closed", dispute)
        if won and reinstate:
            self.reinstate(ref)

    def reinstate(self, ref: str) -> None:
        dispute = self.state.get("dispute", ref)
        withdrawn = -sum(each["amount"] for each in dispute["balance_transactions"])
        if withdrawn:
            self._move_money(dispute, withdrawn)

    # the API

    def list(self, params: Obj) -> Obj:
        since = int(params.get("created", {}).get("gte", 0))
        rows = [row for row in self.state.all("dispute") if row["created"] >= since]
        return page(rows, params, "/v1/disputes")

    def _move_money(self, dispute: Obj, amount: int) -> None:
        made: dict[str, Any] = {"amount": amount, "fee": 1500, "net": amount - 1500, "type": "adjustment"}
        moved = self.state.make("balance_transaction", currency=dispute["currency"], source=dispute["id"], **made)
        dispute["balance_transactions"].append(moved)
        self.state.tell(f"charge.dispute.funds_{'withdrawn' if amount < 0 else 'reinstated'}", dispute)
