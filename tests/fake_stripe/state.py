"""What the fake Stripe knows: objects, its own time, the events that it will tell."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

Obj = dict[str, Any]
_SHAPES: dict[str, Obj] = json.loads((Path(__file__).parent / "fixtures3.json").read_text("utf-8"))["resources"]
START_S = 1_790_000_000  # some day in 2026
_PREFIXES = {
    "customer": "cus",
    "setup_intent": "seti",
    "payment_method": "pm",
    "payment_intent": "pi",
    "charge": "ch",
    "refund": "re",
    "dispute": "dp",
    "balance_transaction": "txn",
    "invoice": "in",
    "invoiceitem": "ii",
    "price": "price",
    "subscription": "sub",
    "subscription_item": "si",
    "billing.meter": "mtr",
    "billing.credit_grant": "credgr",
    "billing.meter_event_adjustment": "mtradj",
    "billing_portal.session": "bps",
    "event": "evt",
}


class Refusal(Exception):
    """An error of the API, in Stripe's own shape."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, **more}}


class State:
    def __init__(self, now_s: int = START_S) -> None:
        self.now_s = float(now_s)
        self.objects: dict[str, dict[str, Obj]] = {}
        self.events: list[Obj] = []
        self._count = 0

    def advance(self, seconds: float) -> None:
        self.now_s += seconds

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self._count:08d}"

    def make(self, kind: str, **fields: Any) -> Obj:
        """A new object in the shape of Stripe's example, with these fields."""
        made = deepcopy(_SHAPES[kind])
        made.update(id=self.new_id(_PREFIXES[kind]), created=int(self.now_s), livemode=False)
        if "metadata" in made:
            made["metadata"] = {}
        made.update(fields)
        self.objects.setdefault(kind, {})[made["id"]] = made
        return made

    def all(self, kind: str) -> list[Obj]:
        """Newest first, as Stripe lists."""
        return list(reversed(self.objects.get(kind, {}).values()))

    def get(self, kind: str, ref: Any) -> Obj:
        """Raises Refusal: 404, `resource_missing`."""
        found = self.objects.get(kind, {}).get(str(ref))
        if found is None:
            raise Refusal(404, f"No such {kind}: '{ref}'", code="resource_missing", param="id")
        return found

    def tell(self, kind: str, obj: Obj) -> None:
        """An event with a snapshot of the object as it is now."""
        event = deepcopy(_SHAPES["event"])
        event.update(id=self.new_id("evt"), created=int(self.now_s), type=kind, data={"object": deepcopy(obj)})
        self.events.append(event)

    def tell_thin(self, kind: str, meter: str | None, data: Obj) -> None:
        """A thin event: what is sent names the object at most; `data` is got by fetching the event."""
        about = None if meter is None else {"id": meter, "type": "billing.meter", "url": f"/v1/billing/meters/{meter}"}
        self.events.append(
            {
                "id": self.new_id("evt_test"),
                "object": "v2.core.event",
                "type": kind,
                "created": "2026-09-21T00:00:00.000Z",
                "livemode": False,
                "context": None,
                "related_object": about,
                "data": data,
            }
        )


def page(rows: list[Obj], params: Obj, url: str) -> Obj:
    """One page of a list as Stripe answers it. Raises Refusal."""
    after = params.get("starting_after")
    if after is not None:
        places = [index for index, row in enumerate(rows) if row["id"] == after]
        if not places:
            raise Refusal(400, f"No such object: '{after}'", code="resource_missing", param="starting_after")
        rows = rows[places[0] + 1 :]
    limit = int(params.get("limit", 10))
    if not 1 <= limit <= 100:
        raise Refusal(400, "This value must be between 1 and 100", param="limit")
    return {"object": "list", "url": url, "has_more": len(rows) > limit, "data": rows[:limit]}
