"""From a request to a node: filter, pick, and the ledger of what was dispatched.

Invariant: each `dispatched` is followed by exactly one `finished` with the same candidate and tokens, whatever
becomes of the request; the caller does so in a `finally`.
"""

from crosslogic.kernel.clock import Clock
from crosslogic.scheduling.model import Ask, Candidate, NoNode, NoNodeReason, Rng
from crosslogic.scheduling.places import Places
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.strategies import Strategy

_WITHOUT_END = 1 << 40  # places on a node without a ceiling
_UNKNOWN_MODEL = NoNode(NoNodeReason.UNKNOWN_MODEL)
_NO_CAPACITY = NoNode(NoNodeReason.NO_CAPACITY)
_NO_HEALTHY_NODE = NoNode(NoNodeReason.NO_HEALTHY_NODE)


class Scheduler:
    """One for each gateway process. `max_requests_per_node` counts this gateway's own; None: no ceiling."""

    def __init__(
        self,
        pool: Pool,
        strategy: Strategy,
        rng: Rng,
        clock: Clock,
        *,
        max_requests_per_node: int | None = None,
    ) -> None:
        self.pool = pool
        self.places = Places(pool, max_requests_per_node or _WITHOUT_END)
        self.strategy = strategy
        self._rng = rng
        self._monotonic_s = clock.monotonic_s
        self._max_requests = max_requests_per_node

    def pick(self, ask: Ask) -> Candidate | NoNode:
        """The node for `ask`, or why there is none. Changes nothing: call `dispatched` when it is used."""
        candidates = self.pool.candidates(ask, self._monotonic_s())
        picked = self.strategy.pick(candidates, ask, self._rng)
        if picked is None:
            return _NO_HEALTHY_NODE if self.pool.knows(ask.model, ask.org_id) else _UNKNOWN_MODEL
        ceiling = self._max_requests
        if ceiling is None or ask.reserved or picked.ledger.requests < ceiling:
            return picked
        free = [candidate for candidate in candidates if candidate.ledger.requests < ceiling]
        return self.strategy.pick(free, ask, self._rng) or _NO_CAPACITY

    def dispatched(self, candidate: Candidate, tokens: int) -> None:
        """Count a request as in flight."""
        candidate.ledger.add(tokens)
        self.places.take(candidate)

    def finished(
        self, candidate: Candidate, tokens: int, *, ok: bool | None, first_token_ms: float | None = None
    ) -> None:
        """Take a request out of flight and learn from it.

        `ok` is whether the node did its part; None when the request says nothing about it (the caller left
        before the first token).
        """
        candidate.ledger.remove(tokens)
        self.places.give_back(candidate)
        if first_token_ms is not None:
            candidate.observe_first_token(first_token_ms)
        if ok is None:
            return
        if not ok:
            self.pool.failed(candidate, self._monotonic_s())
        elif candidate.failures:
            self.pool.succeeded(candidate)
