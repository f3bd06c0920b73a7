"""Who may be dispatched now: the fair queue, the reserved lanes and the places on nodes, brought together. Pure.

Invariants:
- A request starts at once only when nobody waits that it would overtake.
- No place is left free while somebody waits who may have it.
- Between a grant and the dispatch that it allows, the place counts as taken (`pending`), for every line: lines may
  share nodes, and nobody here knows which.
"""

from collections.abc import Callable

from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.lanes import NO_LANE, Lane
from crosslogic.queueing.model import Queued, Shed, TrafficClass, Turn, TurnAsk, cost_of
from crosslogic.queueing.ports import Capacity
from crosslogic.queueing.preemption import victim

_RESERVED = TrafficClass.RESERVED

LaneOf = Callable[[str], Lane]


def no_lane(_: str) -> Lane:
    """Nothing is reserved anywhere."""
    return NO_LANE


class Desk:
    """Decides; whoever calls it acts."""

    def __init__(self, queue: FairQueue, capacity: Capacity, *, lane_of: LaneOf = no_lane) -> None:
        self.queue = queue
        self.pending = 0  # granted, not yet dispatched
        self._capacity = capacity
        self._lane_of = lane_of
        self._preemptible: dict[str, dict[str, Turn]] = {}  # by line, by request
        self._waiting_lines: dict[str, None] = {}

    def ask(self, ask: TurnAsk, now_s: float) -> Turn | Queued | Shed:
        """A turn at once, a place in the queue, or neither."""
        line = self.queue.line(ask.line)
        waiting = len(line.reserved.order) if ask.traffic is _RESERVED else line.waiting
        if not waiting and (self._may_start(ask.line, ask.traffic) or not self._capacity.total(ask.line)):
            return self._start(ask, now_s)
        answer = self.queue.offer(ask, now_s)
        if isinstance(answer, Queued):
            self._waiting_lines[ask.line] = None
        return answer

    def again(self, turn: Turn, now_s: float) -> Turn | Queued | Shed:
        """Its request was put back, and waits at its old place; the time for which it ran does not count as waiting."""
        ask = turn.ask
        ask.deadline_s += now_s - turn.started_s
        line = self.queue.line(ask.line)
        if not line.waiting and self._may_start(ask.line, ask.traffic):
            return self._start(ask, now_s)
        answer = self.queue.take_back(ask, now_s)
        if isinstance(answer, Queued):
            self._waiting_lines[ask.line] = None
        return answer

    def grant(self, now_s: float) -> list[Turn]:
        """All turns that can be given now, line after line in rotation; each is pending until `claimed`."""
        granted: list[Turn] = []
        idle = 0
        while idle < len(self._waiting_lines):
            name = next(iter(self._waiting_lines))
            del self._waiting_lines[name]
            line = self.queue.lines[name]
            if not line.waiting:
                continue
            self._waiting_lines[name] = None
            ask = self._next(name, now_s)
            if ask is None:
                idle += 1
                continue
            idle = 0
            self.pending += 1
            granted.append(self._start(ask, now_s))
        return granted

    def claimed(self) -> None:
        """A granted turn is being dispatched: from now on the capacity counts it itself."""
        self.pending -= 1

    def done(self, turn: Turn, prompt_tokens: int, output_tokens: int, now_s: float) -> bool:
        """The turn is over; False when it was before."""
        if not turn.open:
            return False
        turn.open = False
        if self._preemptible:
            self._forget(turn)
        self.queue.end(turn, cost_of(prompt_tokens, output_tokens), now_s)
        return True

    def preempt_for(self, waiting: TurnAsk) -> Turn | None:
        """Who is to be put back so that `waiting`, which has just been queued, can start. At most once a turn."""
        if not waiting.preempts:
            return None
        turn = victim(self._preemptible.get(waiting.line, {}).values(), waiting)
        if turn is not None:
            turn.ask.preemptible = False  # nobody is put back twice
            self._forget(turn)
        return turn

    def _next(self, name: str, now_s: float) -> TurnAsk | None:
        if self._may_start(name, TrafficClass.SERVERLESS):
            return self.queue.next(name, now_s)
        if self._may_start(name, _RESERVED):
            return self.queue.next(name, now_s, reserved_only=True)
        return None

    def _may_start(self, name: str, traffic: TrafficClass) -> bool:
        free = self._capacity.free(name) - self.pending
        if traffic is _RESERVED or free <= 0:
            return free > 0
        lane = self._lane_of(name)
        return lane is NO_LANE or lane.shared_may_start(free, self.queue.lines[name].reserved.running)

    def _forget(self, turn: Turn) -> None:
        running = self._preemptible.get(turn.ask.line)
        if running is not None and running.pop(turn.ask.id, None) is not None and not running:
            del self._preemptible[turn.ask.line]

    def _start(self, ask: TurnAsk, now_s: float) -> Turn:
        if ask.preemptible:
            self.queue.came(ask, now_s)
        turn = self.queue.start(ask, now_s)
        if ask.preemptible:
            self._preemptible.setdefault(ask.line, {})[ask.id] = turn
        return turn
