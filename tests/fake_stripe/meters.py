"""Billing meters: definitions, events of v1 and v2, asynchronous validation, the window of identifiers, summaries
that lag, adjustments.

An event that is taken is validated when `validate()` runs, as Stripe does later: what does not count is reported in a
thin event, by code. Summaries show what was validated `lag_s` ago.
"""

from datetime import datetime
from typing import Any

from tests.fake_stripe.state import Obj, Refusal, State, page

IDENTIFIER_WINDOW_S = 24 * 3600
OLDEST_S = 35 * 24 * 3600
NEWEST_S = 5 * 60
SESSION_S = 15 * 60


class Meters:
    def __init__(self, state: State) -> None:
        self.state = state
        self.lag_s = 0.0
        self.identifier_window_s: float = IDENTIFIER_WINDOW_S
        self.pending: list[Obj] = []
        self.counted: list[Obj] = []  # validated events: meter, customer, value, at, counted_at, identifier
        self._identifiers: dict[str, float] = {}
        self._sessions: dict[str, float] = {}

    def create_meter(self, params: Obj) -> Obj:
        if any(row["event_name"] == params["event_name"] and row["status"] == "active" for row in self._meters()):
            raise Refusal(400, "There is already an active meter with this event name.", code="resource_already_exists")
        made = self.state.make(
            "billing.meter",
            display_name=params["display_name"],
            event_name=params["event_name"],
            default_aggregation={"formula": params["default_aggregation"]["formula"]},
            status="active",
        )
        made["customer_mapping"] = {"event_payload_key": "stripe_customer_id", "type": "by_id"}
        return made

    def list_meters(self, params: Obj) -> Obj:
        rows = [row for row in self._meters() if params.get("status") in (None, row["status"])]
        return page(rows, params, "/v1/billing/meters")

    def deactivate(self, ref: str) -> Obj:
        meter = self.state.get("billing.meter", ref)
        meter["status"] = "inactive"
        return meter

    def take_v1(self, params: Obj) -> Obj:
        """v1: what is plainly wrong is refused at once, the rest is validated later."""
        identifier = self._take(params, int(params.get("timestamp", self.state.now_s)))
        return {
            "object": "billing.meter_event",
            "created": int(self.state.now_s),
            "event_name": params["event_name"],
            "identifier": identifier,
            "livemode": False,
            "payload": dict(params["payload"]),
            "timestamp": int(params.get("timestamp", self.state.now_s)),
        }

    def take_v2(self, params: Obj) -> Obj:
        """v2, one event: validated at once."""
        at = _seconds(params.get("timestamp"), self.state.now_s)
        code = self._verdict(params, at)
        if code is not None:
            raise Refusal(400, f"the event is not valid: {code}", code=code)
        identifier = self._take(params, int(at))
        self.validate()
        return {"object": "v2.billing.meter_event", "identifier": identifier, "event_name": params["event_name"]}

    def open_session(self, _params: Obj) -> Obj:
        token = self.state.new_id("mes_token")
        self._sessions[token] = self.state.now_s + SESSION_S
        return {
            "object": "v2.billing.meter_event_session",
            "id": self.state.new_id("mes"),
            "authentication_token": token,
        }

    def take_stream(self, params: Obj, token: str) -> Obj:
        """v2, up to 100 events under a session's token: validated later."""
        if self._sessions.get(token, 0.0) <= self.state.now_s:
            raise Refusal(401, "the session has expired", code="billing_meter_event_session_expired")
        events = params.get("events", [])
        if not 1 <= len(events) <= 100:
            raise Refusal(400, "between 1 and 100 events", param="events")
        for event in events:
            self._take(event, int(_seconds(event.get("timestamp"), self.state.now_s)))
        return {}

    def adjust(self, params: Obj) -> Obj:
        """Cancel one event by its identifier, within a day of its receipt."""
        identifier = params["cancel"]["identifier"]
        for event in [*self.pending, *self.counted]:
            if event["identifier"] == identifier:
                if self.state.now_s - event["received_at"] > 24 * 3600:
                    raise Refusal(400, "The event is too old to be cancelled.")
                event["cancelled"] = True
                return self.state.make("billing.meter_event_adjustment", status="pending")
        raise Refusal(404, "No such meter event", code="resource_missing")

    def validate(self) -> None:
        """What Stripe does behind the API: count what is right, report what is not."""
        wrong: dict[str, list[Obj]] = {}
        for event in self.pending:
            code = self._verdict(event["params"], event["at"], event["received_at"])
            if code is None:
                meter = next(row for row in self._meters() if row["event_name"] == event["params"]["event_name"])
                self.counted.append({**event, "meter": meter["id"], "counted_at": self.state.now_s})
            else:
                wrong.setdefault(code, []).append(event)
        self.pending = []
        unknown = {code: events for code, events in wrong.items() if code == "no_meter"}
        known = {code: events for code, events in wrong.items() if code != "no_meter"}
        if unknown:
            self._report("v1.billing.meter.no_meter_found", None, unknown)
        if known:
            self._report("v1.billing.meter.error_report_triggered", self._meters()[0]["id"], known)

    def total(self, event_name: str, customer: str) -> int:
        """All that counts, whatever summaries show yet."""
        return sum(
            int(event["params"]["payload"]["value"])
            for event in self.counted
            if event["params"]["event_name"] == event_name
            and event["params"]["payload"]["stripe_customer_id"] == customer
            and not event.get("cancelled")
        )

    def summaries(self, meter_ref: str, params: Obj) -> Obj:
        self.state.get("billing.meter", meter_ref)
        start, end = int(params["start_time"]), int(params["end_time"])
        step = {"hour": 3600, "day": 86400}.get(str(params.get("value_grouping_window")), max(end - start, 60))
        unit = step if "value_grouping_window" in params else 60
        if start % unit or end % unit:
            raise Refusal(400, "The times must be aligned with minute boundaries.", param="start_time")
        rows = []
        for begin in range(start, end, step):
            value = sum(
                int(event["params"]["payload"]["value"])
                for event in self.counted
                if event["meter"] == meter_ref
                and event["params"]["payload"]["stripe_customer_id"] == params["customer"]
                and begin <= event["at"] < begin + step
                and event["counted_at"] + self.lag_s <= self.state.now_s
                and not event.get("cancelled")
            )
            rows.append(
                {
                    "id": f"mtrusg_{meter_ref}_{begin}",
                    "object": "billing.meter_event_summary",
                    "aggregated_value": value,
                    "start_time": begin,
                    "end_time": begin + step,
                    "livemode": False,
                    "meter": meter_ref,
                }
            )
        return page([row for row in rows if row["aggregated_value"]], params, f"/v1/billing/meters/{meter_ref}")

    def _take(self, params: Obj, at: int) -> str:
        if not isinstance(params.get("payload"), dict) or "event_name" not in params:
            raise Refusal(400, "Missing required param: payload.", code="parameter_missing", param="payload")
        identifier = str(params.get("identifier") or self.state.new_id("evid"))
        if len(identifier) > 100:
            raise Refusal(400, "Invalid string: must be at most 100 characters", param="identifier")
        taken_at = self._identifiers.get(identifier)
        if taken_at is not None and self.state.now_s - taken_at < self.identifier_window_s:
            raise Refusal(400, f"An event already exists with identifier {identifier}.", code="duplicate_meter_event")
        self._identifiers[identifier] = self.state.now_s
        self.pending.append({"params": params, "at": at, "received_at": self.state.now_s, "identifier": identifier})
        return identifier

    def _verdict(self, params: Obj, at: float, received_at: float | None = None) -> str | None:
        received = self.state.now_s if received_at is None else received_at
        meters = [row for row in self._meters() if row["event_name"] == params.get("event_name")]
        payload: dict[str, Any] = params.get("payload", {})
        value = str(payload.get("value", ""))
        if not meters:
            return "no_meter"
        if all(row["status"] != "active" for row in meters):
            return "archived_meter"
        if "stripe_customer_id" not in payload:
            return "meter_event_no_customer_defined"
        if payload["stripe_customer_id"] not in self.state.objects.get("customer", {}):
            return "meter_event_customer_not_found"
        if not value.removeprefix("-").isdigit():
            return "meter_event_invalid_value"
        if len(value.removeprefix("-")) > 15:
            return "meter_event_value_too_many_digits"
        if at < received - OLDEST_S:
            return "timestamp_too_far_in_past"
        return "timestamp_in_future" if at > received + NEWEST_S else None

    def _report(self, kind: str, meter: str | None, wrong: dict[str, list[Obj]]) -> None:
        kinds = [
            {
                "code": code,
                "error_count": len(events),
                "sample_errors": [
                    {"error_message": code, "request": {"identifier": event["identifier"]}} for event in events
                ],
            }
            for code, events in wrong.items()
        ]
        data = {
            "developer_message_summary": f"there were {sum(map(len, wrong.values()))} invalid events",
            "validation_start": "2026-09-21T00:00:00.000Z",
            "validation_end": "2026-09-21T00:00:10.000Z",
            "reason": {"error_count": sum(map(len, wrong.values())), "error_types": kinds},
        }
        self.state.tell_thin(kind, meter, data)

    def _meters(self) -> list[Obj]:
        return self.state.all("billing.meter")


def _seconds(text: Any, now_s: float) -> float:
    return now_s if text is None else datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
