"""A second node for a stream whose first token is late: whichever begins first answers, the other is given up.

Off unless `scheduling.hedge_after_s` is set. Never after the first token, and never into overload: the second node must
have less to do than the first, and at most one request in twenty is hedged (Dean and Barroso, "The Tail at Scale").
Invariant: the caller gets the bytes of one node only.
"""

import asyncio
from collections.abc import Callable

import msgspec

from crosslogic.gateway.attempts import Attempts
from crosslogic.gateway.request import Call
from crosslogic.gateway.visit import Attempt, PutBack, Race, Visit
from crosslogic.metering.model import Outcome
from crosslogic.scheduling.model import Candidate, NoNode
from crosslogic.tenancy.model import Principal

SHARE = 0.05
MOST_CREDIT = 10.0

Pick = Callable[[Visit, Principal, Call], Candidate | NoNode]
Ended = Attempt | PutBack


class Hedger:
    """Makes attempts of streams; `pick` chooses the second node."""

    def __init__(self, attempts: Attempts, pick: Pick) -> None:
        self._attempts = attempts
        self._pick = pick
        self._credit = 1.0  # hedges that may still be made

    async def make(self, visit: Visit, principal: Principal, call: Call, candidate: Candidate, after_s: float) -> Ended:
        """As `Attempts.make`, with a second node after `after_s` seconds without a byte."""
        self._credit = min(MOST_CREDIT, self._credit + SHARE)
        visit.race = race = Race()
        first = asyncio.ensure_future(self._attempts.make(visit, principal, call, candidate))
        running = [first]
        try:
            await asyncio.wait((first,), timeout=after_s)
            other = None if first.done() or race.won else self._second(visit, principal, call, candidate)
            if other is None:
                return await first
            self._credit -= 1.0
            visit_of_other = msgspec.structs.replace(visit, relay=None)
            second = asyncio.ensure_future(self._attempts.make(visit_of_other, principal, call, other))
            running.append(second)
            ended = await self._first_to_answer(visit, first, second, race)
            visit.attempts = max(visit.attempts, visit_of_other.attempts)
            return ended
        finally:
            visit.race = None
            for task in running:
                if not task.done():
                    task.cancel()

    def _second(self, visit: Visit, principal: Principal, call: Call, first: Candidate) -> Candidate | None:
        if self._credit < 1.0:
            return None
        apart = msgspec.structs.replace(visit, excluded=(*visit.excluded, first.node_id))
        found = self._pick(apart, principal, call)
        if isinstance(found, NoNode) or found.ledger.load_s >= first.ledger.load_s:
            return None
        return found

    async def _first_to_answer(
        self, visit: Visit, first: "asyncio.Future[Ended]", second: "asyncio.Future[Ended]", race: Race
    ) -> Ended:
        """The one that began, or whose caller left; where neither did, the one that ended last."""
        waiting = {first, second}
        while True:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            ended = done.pop().result()
            if done or not waiting:
                other = done.pop().result() if done else None
                return other if isinstance(ended, PutBack) and other is not None else ended
            if isinstance(ended, PutBack):
                continue  # the other began, or will
            if not ended.retry or ended.outcome is Outcome.CLIENT_CLOSED:
                race.end()
                await asyncio.wait(waiting)
                return ended
            visit.excluded = (*visit.excluded, ended.candidate.node_id)
            race.listen()
