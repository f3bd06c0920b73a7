"""Intents and usage records for tests: the same number makes the same request."""

from typing import Any

import msgspec

from crosslogic.kernel.ids import EnvId, KeyId, NodeId, OrgId, RequestId
from crosslogic.metering.model import Evidence, Intent, Outcome, UsageRecord

DAY_US = 86_400 * 1_000_000
JANUARY_1_2026_US = 1_767_225_600 * 1_000_000


def _request(number: int) -> dict[str, Any]:
    """What an intent and the record of the same request have in common."""
    return {
        "request_id": RequestId(f"req_{number:06}"),
        "timestamp_us": JANUARY_1_2026_US + number,
        "org_id": OrgId("org_1"),
        "env_id": EnvId("env_1"),
        "key_id": KeyId("key_1"),
        "endpoint": "chat.completions",
        "model": "model-a",
        "region": "local",
        "node_id": NodeId("node_1"),
    }


def intent(number: int) -> Intent:
    return Intent(**_request(number), prompt_tokens_estimate=10)


def usage(number: int, **changes: Any) -> UsageRecord:
    record = UsageRecord(
        **_request(number),
        prompt_tokens=10,
        completion_tokens=20,
        cached_tokens=4,
        reasoning_tokens=5,
        evidence=Evidence.ENGINE,
        outcome=Outcome.COMPLETED,
        finish_reason="stop",
        http_status=200,
        streamed=True,
        attempts=1,
        latency_ms=5,
        first_token_ms=None,
    )
    return msgspec.structs.replace(record, **changes)
