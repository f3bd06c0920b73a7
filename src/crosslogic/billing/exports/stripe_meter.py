"""Stripe's billing meters (v1 meter events): a sink for sums of tokens by hour.

Stripe takes an event and validates it later; what does not count comes back as a report. An identifier that it has
seen within a day counts once.
"""

from datetime import datetime, timedelta
from typing import Any

from stripe import StripeClient

from crosslogic.billing.exports.ports import MeterEvent
from crosslogic.billing.payments.ports import ProviderRefused
from crosslogic.billing.payments.stripe import asked, part, translated

_KNOWN = ("duplicate_meter_event", "resource_already_exists")
_SAMPLE_ERRORS = 1_000


class StripeMeters:
    """`MeterSink` over Stripe. Meters that are missing are made: sums by customer."""

    def __init__(self, client: StripeClient) -> None:
        self._client = client
        self._v1 = client.v1
        self._meters: dict[str, str] = {}

    async def send(self, event: MeterEvent) -> None:
        await self._meter(event.meter)
        try:
            await asked(
                self._v1.billing.meter_events.create_async(
                    {
                        "event_name": event.meter,
                        "identifier": event.identifier,
                        "payload": {"stripe_customer_id": event.customer_ref, "value": str(event.quantity)},
                        "timestamp": int(event.at.timestamp()),
                    }
                )
            )
        except ProviderRefused as refused:
            if refused.code not in _KNOWN and "already exists" not in str(refused):
                raise

    async def total(self, meter: str, customer_ref: str, hour: datetime) -> int:
        meter_ref = await self._meter(meter)
        start = int(hour.timestamp())
        end = int((hour + timedelta(hours=1)).timestamp())
        total = 0
        async with translated():
            found = await self._v1.billing.meters.event_summaries.list_async(
                meter_ref, {"customer": customer_ref, "start_time": start, "end_time": end, "limit": 100}
            )
            async for summary in found.auto_paging_iter():
                total += int(summary.aggregated_value)
        return total

    async def rejected(self, event_ref: str) -> list[tuple[str, str]]:
        event: Any = await asked(self._client.v2.core.events.retrieve_async(event_ref))
        found: list[tuple[str, str]] = []
        for kind in part(part(part(event, "data"), "reason"), "error_types") or []:
            for sample in (part(kind, "sample_errors") or [])[:_SAMPLE_ERRORS]:
                name = part(part(sample, "request"), "identifier")
                if isinstance(name, str):
                    found.append((name, str(part(kind, "code"))))
        return found

    async def _meter(self, name: str) -> str:
        """Its id; made where there is none, since an event of an unknown name would not count."""
        if name in self._meters:
            return self._meters[name]
        async with translated():
            found = await self._v1.billing.meters.list_async({"status": "active", "limit": 100})
            async for meter in found.auto_paging_iter():
                self._meters[meter.event_name] = meter.id
        if name not in self._meters:
            try:
                made = await asked(
                    self._v1.billing.meters.create_async(
                        {"display_name": name, "event_name": name, "default_aggregation": {"formula": "sum"}}
                    )
                )
            except ProviderRefused as refused:
                if "already" not in str(refused):
                    raise
                return await self._meter(name)
            self._meters[name] = made.id
        return self._meters[name]
