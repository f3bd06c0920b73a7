"""Invariants 18 and 19: payments and refunds move along listed edges only, and never more goes back than was captured:
whatever is lost, repeated or told by webhook in between, on a real database, against the provider's own books."""

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crosslogic.billing.payments.model import Payment, Status
from crosslogic.billing.payments.states import PAYMENT_EDGES, REFUND_EDGES
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import CrossLogicError
from crosslogic.store import migrate
from crosslogic.store.engine import create_engine
from tests.examples import examples
from tests.fake_stripe.server import FAULTS
from tests.payments_rig import ACME, Rig, StripeSide, stripe_side

_MIGRATED: list[Path] = []


async def _migrated() -> Path:
    """A database file of its own, copied from one that is migrated once."""
    place = Path(mkdtemp())
    if not _MIGRATED:
        template = place / "template.db"
        engine = create_engine(f"sqlite:///{template}")
        await migrate.upgrade(engine)
        await engine.dispose()
        _MIGRATED.append(template)
    return Path(shutil.copy(_MIGRATED[0], place / "test.db"))


class PaymentMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.seen: dict[str, Status] = {}
        self.methods: dict[str, str] = {}
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        clock = ManualClock()
        path = await _migrated()
        engine = create_engine(f"sqlite:///{path}")
        self.stack.callback(shutil.rmtree, path.parent if path.parent != _MIGRATED[0].parent else path, True)
        self.stack.push_async_callback(engine.dispose)
        self.side: StripeSide = await self.stack.enter_async_context(stripe_side(clock))
        self.rig = await Rig(engine, self.side, clock).prepare()
        for behaviour in ("ok", "declined", "3ds"):
            self.methods[behaviour] = await self.rig.method(behaviour=behaviour)

    def teardown(self) -> None:
        self.loop.run_until_complete(self._converge())
        self.loop.run_until_complete(self.stack.aclose())
        self.loop.close()

    def do(self, what: Any) -> Any:
        """A refusal that callers may get is none of the machine's matter."""
        try:
            return self.loop.run_until_complete(what)
        except CrossLogicError:
            return None

    @rule(behaviour=st.sampled_from(["ok", "ok", "declined", "3ds"]), amount=st.integers(50, 5000))
    def buy(self, behaviour: str, amount: int) -> None:
        self.do(self.rig.service.top_up(ACME, amount, "usd", method_id=self.methods[behaviour]))

    @rule(fault=st.sampled_from(FAULTS), path=st.sampled_from(["/v1/payment_intents", "/v1/refunds", "/"]))
    def break_something(self, fault: str, path: str) -> None:
        self.side.fake.faults.order(fault, path)

    @rule(seconds=st.sampled_from([1, 60, 900, 7200, 80_000, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.side.advance(seconds)

    @rule()
    def the_job_runs(self) -> None:
        self.do(self.rig.service.drive_due())

    @rule(pick=st.integers(0, 50), succeeds=st.booleans())
    def a_payer_acts(self, pick: int, succeeds: bool) -> None:
        waiting = [each for each in self.side.fake.state.all("payment_intent") if each["status"] == "requires_action"]
        if waiting:
            self.side.fake.payments.payer_acts(waiting[pick % len(waiting)]["id"], succeeds=succeeds)

    @rule(pick=st.integers(0, 50))
    def a_webhook_tells(self, pick: int) -> None:
        intents = self.side.fake.state.all("payment_intent")
        if intents:
            intent = intents[pick % len(intents)]
            self.do(self.rig.service.payment_driver.look_at(intent["metadata"]["crosslogic_payment"], intent["id"]))

    @precondition(lambda self: self.seen)
    @rule(pick=st.integers(0, 50), amount=st.integers(1, 4000), key=st.sampled_from([None, "a", "b"]))
    def refund(self, pick: int, amount: int, key: str | None) -> None:
        ids = sorted(each for each in self.seen if each.startswith("pay_"))
        if ids:
            self.do(self.rig.service.refund(ids[pick % len(ids)], amount, creation_ref=key))

    @rule(pick=st.integers(0, 50))
    def a_refund_bounces(self, pick: int) -> None:
        stands = [each for each in self.side.fake.state.all("refund") if each["status"] == "succeeded"]
        if stands:
            refund = stands[pick % len(stands)]
            self.side.fake.payments.refund_fails(refund["id"])
            self.do(self.rig.service.refund_driver.look_at(refund["metadata"]["crosslogic_refund"], refund["id"]))

    @invariant()
    def only_listed_edges_are_taken(self) -> None:
        for each in [*self._payments(), *self.loop.run_until_complete(self.rig.service.refunds(limit=500))]:
            edges = PAYMENT_EDGES if isinstance(each, Payment) else REFUND_EDGES
            before = self.seen.get(each.id, Status.CREATED)
            assert each.status is before or _reachable(edges, before, each.status), (before, each.status)
            self.seen[each.id] = each.status

    @invariant()
    def never_more_goes_back_than_was_captured(self) -> None:
        for each in self._payments():
            assert 0 <= each.refund_reserved_minor <= each.captured_minor
        for charge in self.side.fake.state.all("charge"):
            assert 0 <= charge["amount_refunded"] <= charge["amount_captured"]

    @invariant()
    def no_payment_is_captured_twice(self) -> None:
        tags = [charge["metadata"]["crosslogic_payment"] for charge in self.side.fake.state.all("charge")]
        assert len(tags) == len(set(tags))

    def _payments(self) -> list[Payment]:
        found: list[Payment] = self.loop.run_until_complete(self.rig.service.payments(limit=500))
        return found

    async def _converge(self) -> None:
        """In the end our books and the provider's say the same."""
        self.side.fake.faults.ordered.clear()
        for _ in range(60):
            await self.rig.service.drive_due()
            self.side.advance(3600)
        there = {
            charge["metadata"]["crosslogic_payment"]: charge["amount_captured"]
            for charge in self.side.fake.state.all("charge")
        }
        ours = {p.id: p.captured_minor for p in await self.rig.service.payments(limit=500) if p.captured_minor}
        assert ours == there
        assert all(p.status in (Status.SUCCEEDED, Status.FAILED) for p in await self.rig.service.payments(limit=500))
        back = sum(charge["amount_refunded"] for charge in self.side.fake.state.all("charge"))
        given = [r for r in await self.rig.service.refunds(limit=500) if r.status is Status.SUCCEEDED]
        assert sum(r.amount_minor for r in given) == back
        told = sorted(ref for _, ref, _ in self.rig.books.told_paid)
        assert sorted(set(told)) == sorted(ours)


def _reachable(edges: dict[Status, frozenset[Status]], start: Status, end: Status) -> bool:
    """Several edges may be taken between two looks."""
    seen, todo = set(), [start]
    while todo:
        here = todo.pop()
        if here is end:
            return True
        todo += [each for each in edges[here] if each not in seen]
        seen |= edges[here]
    return False


TestPayments = PaymentMachine.TestCase
TestPayments.settings = settings(
    max_examples=examples(12), stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
