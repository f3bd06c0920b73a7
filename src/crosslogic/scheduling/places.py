"""How many requests the nodes can still take: what the queue asks before it gives a turn.

A *line* is a set of nodes that serves the same requests: the shared nodes of a model, or the nodes of it that one
org owns. Invariant: a place that is taken is given back exactly once; `Scheduler` does both.

Places are counted per model: a node that serves two models offers its places to both, and the scheduler's own ceiling
on the node is what holds in the end.
"""

from crosslogic.kernel.ids import OrgId
from crosslogic.scheduling.model import Candidate
from crosslogic.scheduling.pool import Pool

_OWNER = "\n"  # no model's name holds a line break


class Places:
    """`queueing.ports.Capacity` over the pool; asked for each request, so nothing is counted anew."""

    def __init__(self, pool: Pool, most_per_node: int) -> None:
        """`most_per_node`: requests of this process that a node runs at once."""
        self._pool = pool
        self._most_per_node = most_per_node
        self._taken: dict[str, int] = {}

    def line(self, model: str, org_id: OrgId) -> str:
        """What a request of this org for this model waits for."""
        return f"{model}{_OWNER}{org_id}" if self._pool.owns(model, org_id) else model

    def free(self, line: str) -> int:
        return self.total(line) - self._taken.get(line, 0)

    def total(self, line: str) -> int:
        model, _, owner = line.partition(_OWNER)
        return self._pool.usable(model, OrgId(owner) if owner else None) * self._most_per_node

    def take(self, candidate: Candidate) -> None:
        line = _line_of(candidate)
        self._taken[line] = self._taken.get(line, 0) + 1

    def give_back(self, candidate: Candidate) -> None:
        line = _line_of(candidate)
        left = self._taken.get(line, 0) - 1
        if left > 0:
            self._taken[line] = left
        else:
            self._taken.pop(line, None)


def _line_of(candidate: Candidate) -> str:
    owner = candidate.owner
    return candidate.model if owner is None else f"{candidate.model}{_OWNER}{owner}"
