"""What goes wrong: several things at a time, each in a lane of its own, until told to stop.

A lane goes through its kinds in shuffled decks, so that the counts come out as the weights say. What it takes away it
gives back, whatever happens; `Faults.stop` returns when all is there again. `weighed` makes some kinds come more often,
and the others as often as before.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import redis

from bench.metering_faults.clocks import SEEN_S, before_april_in_india, before_the_end_of_the_month
from bench.metering_faults.report import say
from bench.metering_faults.site import LEASE_S, NODES, Site

_DAY_S = 86_400.0
SETTLE_S = 2.0  # of a process that goes on, on a machine with much other work
AGAIN_S = 0.25  # until a fault that has to wait for its moment is tried again
# Seconds from the truth.
_JUMPS: dict[str, Callable[[datetime], float]] = {
    "+5 min": lambda _: 300.0,
    "-5 min": lambda _: -300.0,
    "+1 h": lambda _: 3600.0,
    "-1 h": lambda _: -3600.0,
    "+36 d": lambda _: 36 * _DAY_S,
    "-36 d": lambda _: -36 * _DAY_S,
    "over the end of the month": before_the_end_of_the_month,
    "over 31 March in India": before_april_in_india,
}
Kind = tuple[str, int, Callable[[random.Random], bool | None]]  # name, weight, act: None where it has to wait


class Lane(threading.Thread):
    def __init__(
        self, kinds: tuple[Kind, ...], every_s: float, rng: random.Random, done: Counter[str], stopping: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self._kinds, self._every_s, self._rng, self._done, self._stopping = kinds, every_s, rng, done, stopping
        self.mistakes: Counter[str] = Counter()

    def run(self) -> None:
        deck: list[Kind] = []
        while not self._stopping.wait(self._every_s * self._rng.uniform(0.5, 1.5)):
            if not deck:
                deck = [kind for kind in self._kinds for _ in range(kind[1])]
                self._rng.shuffle(deck)
            name, _, act = deck.pop()
            try:
                while (did := act(self._rng)) is None and not self._stopping.wait(AGAIN_S):
                    pass
                if did:
                    self._done[name] += 1
            except Exception as error:  # a fault that could not be done is none; all else goes on
                self.mistakes[f"{name}: {type(error).__name__}: {error}"[:200]] += 1


def weighed(every_s: float, kinds: tuple[Kind, ...], factors: Mapping[str, int]) -> tuple[float, tuple[Kind, ...]]:
    """A lane in which a kind comes `factors[part of its name]` times as often as it would, and all others as they did.

    0: never. Without any kind left `every_s` means nothing.
    """

    def factor(name: str) -> int:
        return math.prod(times for part, times in factors.items() if part in name)

    now = tuple((name, weight * factor(name), act) for name, weight, act in kinds if factor(name))
    before = sum(weight for _, weight, _ in kinds)
    return every_s * before / max(1, sum(weight for _, weight, _ in now)), now


class Faults:
    def __init__(
        self, site: Site, seed: int, pace: float, flows: Callable[[], bool], factors: Mapping[str, int]
    ) -> None:
        """`pace` 2: twice as many. `flows`: answers come in numbers just now. `factors`: as `weighed` has them."""
        self._flows = flows
        self._site = site
        self._stopping = threading.Event()
        self._done: list[Counter[str]] = []
        self._lanes: list[Lane] = []
        self._node_seeds = random.Random(seed)
        full = site.database_disk.can_fill
        postgres: tuple[Kind, ...] = (
            ("PostgreSQL stopped at once (immediate), started again", 5, self._postgres_stop),
            ("PostgreSQL and its backends SIGSTOP", 3, self._postgres_pause),
            ("PostgreSQL not reachable: connections cut, new ones refused", 1, self._shut),
            ("PostgreSQL silent: connections stand, nothing passes", 1, self._silence),
            ("PostgreSQL slow: 20 to 150 ms each way", 1, self._slow),
            *((("PostgreSQL's disk full (ENOSPC)", 1, self._database_full),) if full else ()),
        )
        lanes: list[tuple[float, tuple[Kind, ...]]] = [
            (5.0, (("a gateway worker kill -9", 10, self._worker), ("gateway and workers kill -9", 1, self._gateway))),
            (19.0, (("a worker SIGSTOP past its lease, SIGCONT", 4, self._zombie_worker),
                    ("a worker SIGSTOP, its gateway kill -9, SIGCONT", 1, self._orphan),
                    ("the leading control SIGSTOP past its lease, SIGCONT", 1, self._zombie_control))),
            (20.0, (("a control kill -9", 1, self._control),)),
            (3.6, (("a node's death: FIN", 2, self._node_fin), ("a node's death: RST", 2, self._node_reset),
                   ("a node's death: silent (SIGSTOP)", 1, self._node_silent),
                   ("a node's death: kill -9", 1, self._node_kill))),
            (8.5, (("Redis killed, back empty", 5, self._redis_kill), ("Redis SIGSTOP", 3, self._redis_pause),
                   ("Redis FLUSHALL", 2, self._flushall), ("Redis SCRIPT FLUSH", 2, self._script_flush))),
            (9.5, postgres),
            (3.3, (("pg_terminate_backend of all", 1, self._terminate),)),
            (4.6, (("COMMIT's answer lost: usage_records", 5, self._lose("usage_records")),
                   ("COMMIT's answer lost: charges", 3, self._lose("charges")),
                   ("COMMIT's answer lost: usage_hourly", 2, self._lose("usage_hourly")))),
        ]  # fmt: skip
        if site.journal_disk.can_fill:
            lanes.append((45.0, (("the journal's disk full (ENOSPC)", 1, self._journal_full),)))
        if site.clock.can_jump:
            lanes.append((12.0, tuple((f"the clock jumps: {name}", 1, self._jump(name)) for name in _JUMPS)))
        for number, lane in enumerate(lanes):
            every_s, kinds = weighed(*lane, factors)
            if not kinds:
                continue
            done: Counter[str] = Counter()
            self._done.append(done)
            self._lanes.append(Lane(kinds, every_s / pace, random.Random(f"{seed}:{number}"), done, self._stopping))

    @property
    def done(self) -> Counter[str]:
        # Copies, for the lanes go on counting.
        return sum((Counter(dict(done)) for done in self._done), Counter())

    def start(self) -> None:
        for lane in self._lanes:
            lane.start()

    def stop(self) -> None:
        """Returns when what was taken away is back."""
        self._stopping.set()
        for lane in self._lanes:
            lane.join(120)
        for lane in self._lanes:
            for mistake, count in lane.mistakes.items():
                say(f"a fault that could not be done, {count} times: {mistake}")

    # -- gateway and control

    def _worker(self, rng: random.Random) -> bool | None:
        if not self._flows():
            return None
        pid = self._site.a_worker(rng)
        if pid is not None:
            self._site.deaths.append(time.monotonic())
        return _signal(pid, signal.SIGKILL)

    def _gateway(self, rng: random.Random) -> bool | None:
        if not self._flows():
            return None
        if self._site.stopped:
            return None
        self._site.kill_gateway()
        return True

    def _zombie_worker(self, rng: random.Random) -> bool | None:
        if not self._flows():
            return None
        pid = self._site.a_worker(rng)
        if not self._stand(pid):
            return False
        time.sleep(LEASE_S + rng.uniform(0.2, 1.0))
        return self._go_on(pid)

    def _orphan(self, rng: random.Random) -> bool | None:
        """A stopped worker loses its parent and its siblings, and goes on when others may be at work already."""
        if not self._flows():
            return None
        pid = self._site.a_worker(rng)
        if not self._stand(pid):
            return False
        time.sleep(rng.uniform(0.1, 0.5))
        self._site.kill_gateway(spared=pid)
        time.sleep(rng.uniform(0.5, LEASE_S))
        return self._go_on(pid)

    def _stand(self, pid: int | None) -> bool:
        if pid is None or not _signal(pid, signal.SIGSTOP):
            return False
        self._site.stopped.add(pid)
        return True

    def _go_on(self, pid: int | None) -> bool:
        went = _signal(pid, signal.SIGCONT)
        time.sleep(SETTLE_S)  # for its marks
        self._site.stopped.clear()
        return went

    def _zombie_control(self, rng: random.Random) -> bool:
        leader = self._site.leading_control()
        if leader is None or not _signal(leader, signal.SIGSTOP):
            return False
        time.sleep(2 * LEASE_S + rng.uniform(0.0, 2.0))
        return _signal(leader, signal.SIGCONT)

    def _control(self, rng: random.Random) -> bool:
        control = rng.choice(self._site.controls)
        return control is not None and _signal(control.pid, signal.SIGKILL)

    # -- nodes

    def _node(self, rng: random.Random) -> int | None:
        """One that is up, while two others are."""
        up = [node for node in range(NODES) if self._site.node_is_up(node)]
        return rng.choice(up) if len(up) > 2 else None

    def _node_dies(self, rng: random.Random, number: signal.Signals) -> bool:
        node = self._node(rng)
        process = None if node is None else self._site.nodes[node]
        if node is None or process is None:
            return False
        self._site.held.add(node)
        try:
            process.send_signal(number)
            process.wait(10)
            time.sleep(rng.uniform(0.0, 1.5))
        finally:
            self._site.held.discard(node)
        return True

    def _node_fin(self, rng: random.Random) -> bool:
        return self._node_dies(rng, signal.SIGUSR2)

    def _node_reset(self, rng: random.Random) -> bool:
        return self._node_dies(rng, signal.SIGUSR1)

    def _node_kill(self, rng: random.Random) -> bool:
        return self._node_dies(rng, signal.SIGKILL)

    def _node_silent(self, rng: random.Random) -> bool:
        """Silent for longer than answers may be idle; then it goes on, or is dead after all."""
        node = self._node(rng)
        process = None if node is None else self._site.nodes[node]
        if node is None or process is None:
            return False
        self._site.held.add(node)
        try:
            process.send_signal(signal.SIGSTOP)
            time.sleep(rng.uniform(1.0, 4.5))
            process.send_signal(rng.choice((signal.SIGCONT, signal.SIGCONT, signal.SIGKILL)))
        finally:
            process.send_signal(signal.SIGCONT)
            self._site.held.discard(node)
        return True

    # -- Redis

    def _redis_kill(self, rng: random.Random) -> bool:
        self._site.redis.stop()
        time.sleep(rng.uniform(0.0, 1.0))
        for _ in range(5):
            with contextlib.suppress(AssertionError):
                self._site.redis.start()
                return True
        raise RuntimeError("Redis does not start")

    def _redis_pause(self, rng: random.Random) -> bool:
        return _for_a_while(self._site.redis.pause, self._site.redis.resume, rng.uniform(0.1, 2.0))

    def _flushall(self, rng: random.Random) -> bool:
        with redis.Redis.from_url(self._site.redis.url, socket_timeout=3) as client:
            return bool(client.flushall())

    def _script_flush(self, rng: random.Random) -> bool:
        with redis.Redis.from_url(self._site.redis.url, socket_timeout=3) as client:
            return bool(client.script_flush())

    # -- PostgreSQL

    def _postgres_stop(self, rng: random.Random) -> bool:
        return _for_a_while(self._site.postgres.stop_at_once, self._site.postgres.start, rng.uniform(0.0, 1.5))

    def _postgres_pause(self, rng: random.Random) -> bool:
        return _for_a_while(self._site.postgres.pause, self._site.postgres.resume, rng.uniform(0.5, 3.0))

    def _shut(self, rng: random.Random) -> bool:
        return _for_a_while(self._site.door.shut, self._site.door.open, rng.uniform(0.5, 3.0))

    def _silence(self, rng: random.Random) -> bool:
        return _for_a_while(self._site.door.silence, self._site.door.speak, rng.uniform(0.5, 7.0))

    def _slow(self, rng: random.Random) -> bool:
        slow, late_s = self._site.door.slow, rng.uniform(0.02, 0.15)
        return _for_a_while(partial(slow, late_s), partial(slow, 0.0), rng.uniform(1.0, 3.0))

    def _database_full(self, rng: random.Random) -> bool:
        """It refuses to extend its tables, or ends because it cannot write its log; then it has room again."""
        self._site.database_disk.fill()
        try:
            time.sleep(rng.uniform(1.0, 4.0))
        finally:
            self._site.database_disk.empty()
            time.sleep(0.5)
            if not self._site.postgres.runs:
                self._site.postgres.start()
        return True

    def _terminate(self, rng: random.Random) -> bool:
        with contextlib.suppress(Exception):  # it may be away just now
            statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            statement += "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            return bool(self._site.postgres.execute(statement))
        return False

    def _lose(self, table: str) -> Callable[[random.Random], bool]:
        """What the door has lost is counted there."""

        def act(_: random.Random) -> bool:
            if self._site.door.owed < 3:
                self._site.door.lose_a_commit(table)
            return False

        return act

    # -- clocks

    def _jump(self, name: str) -> Callable[[random.Random], bool]:
        def act(rng: random.Random) -> bool:
            """There for some seconds, and back again, which is a jump as well."""
            jump = partial(self._site.clock.set, _JUMPS[name](datetime.now(UTC)))
            return _for_a_while(jump, partial(self._site.clock.set, 0.0), SEEN_S + rng.uniform(2.5, 5.0))

        return act

    # -- the journal's disk

    def _journal_full(self, rng: random.Random) -> bool:
        return _for_a_while(self._site.journal_disk.fill, self._site.journal_disk.empty, rng.uniform(0.5, 3.0))


def _for_a_while(take: Callable[[], object], give_back: Callable[[], object], seconds: float) -> bool:
    take()
    try:
        time.sleep(seconds)
    finally:
        give_back()
    return True


def _signal(pid: int | None, number: signal.Signals) -> bool:
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False
