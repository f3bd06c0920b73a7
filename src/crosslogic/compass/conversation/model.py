"""Values of conversations and stored specifications."""

from datetime import datetime
from typing import Any

import msgspec

from crosslogic.compass.conversation.reply import Understanding
from crosslogic.compass.intent.ports import Turn
from crosslogic.compass.specification.model import Specification

MOST_TURNS = 200  # of both sides
MOST_SAID = 100_000  # characters of one message that are taken at all


class Conversation(msgspec.Struct, frozen=True):
    id: str
    org_id: str
    title: str
    turns: int
    specification_id: str | None
    created_at: datetime
    updated_at: datetime


class StoredSpecification(msgspec.Struct, frozen=True):
    """`revision` rises with each change; the history has all of them."""

    id: str
    org_id: str
    name: str
    revision: int
    specification: Specification
    created_at: datetime
    updated_at: datetime


class Revision(msgspec.Struct, frozen=True):
    """`changes`: dotted fields with what they became; for what a conversation changed, too."""

    revision: int
    reason: str
    changes: dict[str, Any]
    specification: Specification
    actor: str
    at: datetime


class Exchange(msgspec.Struct, frozen=True):
    """One message and what came of it."""

    conversation: Conversation
    reply: Turn
    understanding: Understanding
    specification: StoredSpecification
    extractor: str
    note: str | None = None
