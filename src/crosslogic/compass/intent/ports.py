"""What reads a conversation."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from crosslogic.compass.intent.model import DeploymentIntent


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"


class Turn(msgspec.Struct, frozen=True):
    """`asked`: the field of the intent that an assistant's question is about, where it asks for one."""

    role: Role
    content: str
    asked: str | None = None


class Reading(msgspec.Struct, frozen=True):
    """What was understood, and by whom; `note` says why not by the one who was asked first."""

    intent: DeploymentIntent
    extractor: str
    note: str | None = None


class Extractor(Protocol):
    async def extract(self, turns: Sequence[Turn]) -> Reading:
        """The intent of all turns together; never raises for what they say."""
        ...

    async def close(self) -> None: ...
