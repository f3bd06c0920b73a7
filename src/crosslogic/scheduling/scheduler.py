"""From a request to a node: filter, pick, and the ledger of what was dispatched.

Invariant: each `dispatched` is followed by exactly one `finished` with the same candidate and tokens, whatever
becomes of the request; the caller does so in a `finally`.
"""

from collections.abc import Mapping, Sequence

import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import OrgId
from crosslogic.scheduling.failover import FailoverThrottle
from crosslogic.scheduling.model import Ask, Candidate, NoNode, NoNodeReason, Rng
from crosslogic.scheduling.nearness import Nearness
from crosslogic.scheduling.places import Places
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.split import Split
from crosslogic.scheduling.strategies import Strategy

_FOUND_KEPT = 10_000
_FOUND_FOR_S = 1.0
_WITHOUT_END = 1 << 40  # places on a node without a ceiling
_UNKNOWN_MODEL = NoNode(NoNodeReason.UNKNOWN_MODEL)
_NO_CAPACITY = NoNode(NoNodeReason.NO_CAPACITY)
_REGION_DOWN = NoNode(NoNodeReason.REGION_DOWN)
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
        failover: FailoverThrottle | None = None,
        nearness: Nearness | None = None,
    ) -> None:
        """`nearness` chooses where a request goes that names no region; None: anywhere."""
        self.pool = pool
        self.places = Places(pool, max_requests_per_node or _WITHOUT_END)
        self.strategy = strategy
        self._rng = rng
        self._monotonic_s = clock.monotonic_s
        self._max_requests = max_requests_per_node
        self.splits: Mapping[str, Split] = {}  # by model, while several deployments of it serve
        self._failover = failover or FailoverThrottle()
        self._nearness = nearness
        self._found: dict[tuple[str, OrgId], tuple[float, str | None]] = {}

    def pick(self, ask: Ask) -> Candidate | NoNode:
        """The node for `ask`, or why there is none. Changes nothing but `ask.journey`: call `dispatched` when used."""
        now_s = self._monotonic_s()
        if ask.region is None and self._nearness is not None:
            ask = self._directed(ask)
        journey = ask.journey
        if journey is not None and ask.region is not None and not journey.counted:
            journey.region, journey.counted = ask.region, True
            self._failover.arrived((ask.region, ask.model))
        candidates = self.pool.at_home(ask, now_s)
        leave = bool(candidates) or ask.region is None or self._may_leave(ask, now_s)
        if not candidates:
            candidates = self.pool.candidates(ask, now_s, leave=leave)
        split = self.splits.get(ask.model)
        if split is not None:
            candidates = self._split(split, ask, candidates)
        picked = self.strategy.pick(candidates, ask, self._rng)
        if picked is None:
            return self._none_for(ask) if leave else _REGION_DOWN
        if journey is not None and ask.region is not None:
            journey.failover = not self.pool.is_within(picked, ask.region)
        ceiling = self._max_requests
        if ceiling is None or picked.ledger.requests < ceiling:
            return picked
        free = [candidate for candidate in candidates if candidate.ledger.requests < ceiling]
        if not free and picked.owner is not None:  # its own are full: shared ones, where it may go there
            others = self.pool.candidates(ask, now_s, shared_only=True, leave=leave)
            free = [candidate for candidate in others if candidate.ledger.requests < ceiling]
        return self.strategy.pick(free, ask, self._rng) or (picked if ask.reserved else _NO_CAPACITY)

    def _none_for(self, ask: Ask) -> NoNode:
        if not self.pool.knows(ask.model, ask.org_id):
            return _UNKNOWN_MODEL
        returns_s = self.pool.rests_until_s(ask)
        return _NO_HEALTHY_NODE if returns_s is None else NoNode(NoNodeReason.NO_CAPACITY, returns_s)

    def leave_alone(self, candidate: Candidate, seconds: float) -> None:
        """Offer it to nobody for so long: it asked for that (`Retry-After`)."""
        if seconds > 0:
            self.pool.leave_alone(candidate, self._monotonic_s() + seconds)

    def _split(self, split: Split, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Those of the deployment that this request is for; of any that has a share, then of all, if these are full."""
        ceiling = self._max_requests or _WITHOUT_END
        chosen = split.choose(ask.org_id, self._rng.random())
        for wanted in ((chosen,), split.deployments):
            found = [c for c in candidates if (c.node.deployment_id or "") in wanted and c.ledger.requests < ceiling]
            if found:
                return found
        return candidates

    def _directed(self, ask: Ask) -> Ask:
        """Towards the nearest region that serves the model, or to our own. A request that began keeps its region."""
        nearness = self._nearness
        assert nearness is not None
        if ask.journey is not None and ask.journey.region is not None:
            region: str | None = ask.journey.region
        elif nearness.by_latency:
            region = self._nearest(ask) or nearness.home
        else:
            region = nearness.home
        return ask if region is None else msgspec.structs.replace(ask, region=region)

    def _nearest(self, ask: Ask) -> str | None:
        """Of the regions that serve the model; looked for once a second."""
        assert self._nearness is not None
        asked, now_s = (ask.model, ask.org_id), self._monotonic_s()
        until_s, region = self._found.get(asked, (0.0, None))
        if now_s >= until_s:
            region = self._nearness.nearest(self.pool.regions_serving(ask.model, ask.org_id))
            if len(self._found) >= _FOUND_KEPT:
                self._found.clear()
            self._found[asked] = now_s + _FOUND_FOR_S, region
        return region

    def _may_leave(self, ask: Ask, now_s: float) -> bool:
        """Whether a request that finds nobody at home may be served elsewhere: decided once for each."""
        journey = ask.journey
        if journey is None or ask.region is None or ask.reserved or not self.pool.is_down(ask, now_s):
            return True
        if journey.may_leave is None:
            journey.may_leave = self._failover.may_leave((ask.region, ask.model))
        return journey.may_leave

    def dispatched(self, candidate: Candidate, tokens: int) -> None:
        """Count a request as in flight."""
        candidate.ledger.add(tokens)
        self.places.take(candidate)
        if candidate.half_open:
            self.pool.probed(candidate, running=True)

    def finished(
        self,
        candidate: Candidate,
        tokens: int,
        *,
        ok: bool | None,
        first_token_ms: float | None = None,
        grave: bool = False,
    ) -> None:
        """Take a request out of flight and learn from it.

        `ok` is whether the node did its part; None when the request says nothing about it (the caller left
        before the first token). `grave`: one such failure is enough to keep others away for a while.
        """
        candidate.ledger.remove(tokens)
        self.places.give_back(candidate)
        if first_token_ms is not None:
            candidate.observe_first_token(first_token_ms)
        if ok is None:
            if candidate.probing:
                self.pool.probed(candidate, running=False)
        elif not ok:
            self.pool.failed(candidate, self._monotonic_s(), grave=grave)
        elif candidate.failures or candidate.half_open:
            self.pool.succeeded(candidate)
