"""How a notice reaches a channel."""

from typing import Protocol

from crosslogic.insight.notices.model import Channel, Notice


class NotDelivered(Exception):
    """The channel did not take it. `str(error)` is fit for its owner to read; `final`: trying again is no use."""

    def __init__(self, problem: str, *, final: bool = False) -> None:
        super().__init__(problem)
        self.final = final


class Sender(Protocol):
    async def send(self, notice: Notice, channel: Channel) -> None:
        """Returns once the other side has taken it. Raises NotDelivered; never takes longer than its deadline."""
        ...
