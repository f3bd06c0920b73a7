"""How many requests the nodes can still take: what the queue asks before it gives a turn.

A *line* is a set of nodes that serves the same requests: the shared nodes of a model, or the nodes of it that one
org owns. Invariant: a place that is taken is given back exactly once; `Scheduler` does both.

Places are counted per model: a node that serves two models offers its places to both, and the scheduler's own ceiling
on the node is what holds in the end.
"""

from crosslogic.fleet.model import Node
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
        """What a request of this org for this model waits for: its own nodes, where it has any that serve it.

        When they are full it goes to shared nodes that are not, if it may go there.
        """
        if not self._pool.owns(model, org_id):
            return model
        own = f"{model}{_OWNER}{org_id}"
        if self.free(own) > 0 or self._pool.is_confined(model, org_id) or self.free(model) <= 0:
            return own
        return model

    def own_nodes(self, model: str, org_id: OrgId) -> list[Node]:
        """The org's own nodes for the model that take requests."""
        return self._pool.own_nodes(model, org_id)

    def free(self, line: str) -> int:
        return self.total(line) - self._taken.get(line, 0)

    def total(self, line: str) -> int:
        return self._pool.usable(*split_line(line)) * self._most_per_node

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


def split_line(line: str) -> tuple[str, OrgId | None]:
    """Model and owner of a line; None: the shared nodes."""
    model, _, owner = line.partition(_OWNER)
    return model, OrgId(owner) if owner else None


def _line_of(candidate: Candidate) -> str:
    owner = candidate.owner
    return candidate.model if owner is None else f"{candidate.model}{_OWNER}{owner}"
