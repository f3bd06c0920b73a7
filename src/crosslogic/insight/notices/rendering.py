"""A notice as each kind of channel shows it. Pure.

Invariant: nothing in a notice can leave its place: header lines of an e-mail have no line breaks, and text in Slack
mentions nobody and links nowhere.
"""

import json
from email.message import EmailMessage
from typing import Any

from crosslogic.insight.notices.model import Notice, Severity

_SIGNS = {Severity.INFO: "ℹ️", Severity.WARNING: "⚠️", Severity.ERROR: "❗", Severity.CRITICAL: "🛑"}


def as_email(notice: Notice, sender: str, recipient: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = " ".join(notice.title.split())
    message["Message-ID"] = f"<{notice.id}@crosslogic.invalid>"  # the same for a repeat, which mailboxes show once
    message["Date"] = notice.at
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{notice.text}\n\n{_lines(notice.facts)}\n")
    return message


def as_slack(notice: Notice) -> dict[str, Any]:
    title, text = _inert(notice.title), _inert(notice.text)
    return {"text": f"{_SIGNS[notice.severity]} *{title}*\n{text}"}


def as_webhook(notice: Notice) -> bytes:
    """`type`, `timestamp` and `data`, as the specification recommends."""
    payload = {
        "type": f"notice.{notice.kind.value}",
        "timestamp": notice.at.isoformat(),
        "data": {
            "id": notice.id,
            "org_id": notice.org_id,
            "severity": notice.severity.value,
            "title": notice.title,
            "text": notice.text,
            "facts": notice.facts,
        },
    }
    return json.dumps(payload, separators=(",", ":"), sort_keys=True).encode()


def as_pagerduty(notice: Notice, routing_key: str) -> dict[str, Any]:
    """An event of the Events API v2. A repeat has the same `dedup_key`, so that it is the same incident."""
    return {
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": notice.id,
        "payload": {
            "summary": notice.title[:1024],
            "source": notice.org_id or "crosslogic",
            "severity": notice.severity.value,
            "timestamp": notice.at.isoformat(),
            "class": notice.kind.value,
            "custom_details": {"text": notice.text, **notice.facts},
        },
    }


def _lines(facts: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def _inert(text: str) -> str:
    """Slack's three control characters, escaped as it asks for."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
