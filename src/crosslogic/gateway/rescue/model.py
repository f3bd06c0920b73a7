"""Values of a rescue: how it was done, and what the caller had when the stream broke. Pure."""

from enum import StrEnum
from typing import Any

import msgspec

from crosslogic.gateway.stream import OpenAiStream


class Way(StrEnum):
    """How the rest of an answer is had."""

    CONTINUED = "continued"  # another node goes on from the text that there is
    JOINED = "joined"  # another node answers anew, and what equals the text that there is, is left out
    RESTARTED = "restarted"  # there was no text yet: another node answers anew
    ENDED = "ended"  # only the reason of the end was missing
    FAILED = "failed"


_NAMES = ("id", "object", "created", "model", "system_fingerprint")


class Delivered(msgspec.Struct, frozen=True):
    """What the caller has of the answer."""

    text: str = ""
    reasoning: str = ""
    tokens: int = 0  # at least so many; an event may carry several
    plain: bool = True  # False: several choices, tools in progress, or something that we could not read
    event: bytes = b""  # data of the last event, b"" when there was none
    resendable: bool = True  # False: there is no request that another node could go on from
    prompt_tokens: int | None = None  # by the engine, where it tells them with each event

    @property
    def nothing(self) -> bool:
        """Whether the caller has seen at most the role of who answers."""
        return not (self.tokens or self.text or self.reasoning)

    def names(self) -> dict[str, Any]:
        """Members that are the same in all events of one answer."""
        try:
            found = msgspec.json.decode(self.event, type=dict[str, Any])
        except msgspec.MsgspecError:
            return {}
        return {name: found[name] for name in _NAMES if name in found}


def delivered_by(reader: OpenAiStream) -> Delivered:
    """What passed through this reader."""
    kept = reader.kept
    return Delivered(
        "".join(kept.pieces),
        "".join(kept.reasoning),
        reader.tokens_delivered,
        kept.plain,
        kept.event,
        prompt_tokens=None if reader.usage is None else reader.usage.prompt_tokens,
    )
