"""Values of the queue: who asks for a turn, who has one, how somebody waits, and why somebody may not.

Costs are *virtual tokens*: a prompt token counts 1 and an output token 2, which is about what they take of a GPU
(Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024).
"""

from collections.abc import Callable
from enum import IntEnum, StrEnum

import msgspec

PROMPT_COST = 1.0
OUTPUT_COST = 2.0


class TrafficClass(IntEnum):
    """In the order in which overload sheds them, the first first (architecture document §28)."""

    FREE = 0
    SERVERLESS = 1
    RESERVED = 2  # within what its org has reserved; what goes beyond that is serverless


class ShedReason(StrEnum):
    TENANT_FULL = "tenant_full"  # too many of this tenant wait already
    QUEUE_FULL = "queue_full"  # too many wait in all, and none of a lower class
    DEADLINE = "deadline"  # its turn would not come, or did not come, in time
    DISPLACED = "displaced"  # it waited, and gave way to a higher class
    LEFT = "left"  # the caller is gone
    REMOVED = "removed"  # somebody with the right to do so took it out


class Standing(msgspec.Struct, frozen=True):
    """How one waiting request stands now. `position` 1 is next; the wait is None until something was measured."""

    position: int
    estimated_wait_s: float | None
    waited_s: float


class TurnAsk(msgspec.Struct, eq=False):
    """One request that wants a place on a node. All times are of the monotonic clock.

    `line` names what is waited for: a set of nodes that can serve this request. That is its model, or the model and
    whatever else parts the fleet for it (region, owner); `Capacity` is asked by the same name.
    """

    id: str
    line: str
    tenant: str  # the org: what fairness is between
    deadline_s: float
    prompt_tokens: int = 0  # estimates
    output_tokens: int = 0
    weight: float = 1.0  # twice the weight, twice the tokens
    priority: int = 1  # higher goes first, and is shed later
    traffic: TrafficClass = TrafficClass.SERVERLESS
    max_waiting: int | None = None  # of this tenant; None: the queue's own bound
    policy: str = ""  # in whose order it waits (`policies.POLICIES`); "": that of the lane
    preempts: bool = False  # while it waits, what runs below it may be put back
    preemptible: bool = False
    on_preempt: Callable[[], None] | None = None  # give up what runs, then wait `again` with the same turn
    shown_id: bytes = b""  # what the caller calls it
    on_wait: Callable[[Standing], None] | None = None  # called each second of waiting
    # The queue's own notes:
    enqueued_s: float | None = None
    sequence: int = 0  # 0: has never waited
    rank: float = 0.0
    expected_cost: float = 0.0
    waiting: bool = False

    @property
    def cost(self) -> float:
        """The estimate in virtual tokens."""
        return PROMPT_COST * self.prompt_tokens + OUTPUT_COST * self.output_tokens


class Turn(msgspec.Struct, eq=False):
    """Leave to be dispatched; it holds a place until `done`. Set `sent` once the caller has seen a byte."""

    ask: TurnAsk
    started_s: float
    charged: float  # virtual tokens, settled by `done`
    sent: bool = False
    open: bool = True


class Queued(msgspec.Struct, frozen=True):
    """It waits. `displaced` lost its place to it."""

    position: int
    estimated_wait_s: float | None
    displaced: TurnAsk | None = None


class Shed(msgspec.Struct, frozen=True):
    """It does not wait. A caller that is alone and comes back after `retry_after_s` finds room."""

    reason: ShedReason
    retry_after_s: float


class Bounds(msgspec.Struct, frozen=True):
    """Most requests that wait, over all lines."""

    waiting: int = 1000
    waiting_per_tenant: int = 100


def cost_of(prompt_tokens: int, output_tokens: int) -> float:
    """Virtual tokens of what was really used."""
    return PROMPT_COST * prompt_tokens + OUTPUT_COST * output_tokens
