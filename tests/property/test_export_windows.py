"""Invariant 22: what was exported is what was to be exported, hour by hour, and no identifier is sent again once the
provider may have forgotten it. Faults, late and corrected usage, rejected events, sums that lag, clocks that jump."""

import asyncio
import shutil
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crosslogic.billing.exports import sql
from crosslogic.billing.exports.model import Mode, WindowStatus
from crosslogic.billing.exports.windows import RESEND_WITHIN
from crosslogic.store.engine import create_engine
from tests.examples import examples
from tests.exports_rig import ExportRig, export_rig
from tests.fake_stripe.server import FAULTS
from tests.payments_rig import ACME, BOLT
from tests.property.test_payment_states import _MIGRATED, _migrated

EVENTS = "/v1/billing/meter_events"


class ExportMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.reports: set[str] = set()
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        path = await _migrated()
        engine = create_engine(f"sqlite:///{path}")
        self.stack.callback(shutil.rmtree, path.parent if path.parent != _MIGRATED[0].parent else path, True)
        self.stack.push_async_callback(engine.dispose)
        self.rig: ExportRig = await self.stack.enter_async_context(export_rig(engine))

    def teardown(self) -> None:
        self.loop.run_until_complete(self._converge())
        self.loop.run_until_complete(self.stack.aclose())
        self.loop.close()

    def do(self, what: Any) -> Any:
        return self.loop.run_until_complete(what)

    @rule(
        tokens=st.lists(st.tuples(st.integers(0, 900), st.just(0), st.integers(-50, 900)), min_size=1, max_size=4),
        hours_ago=st.sampled_from([0, 0, 0, 1, 5, 48]),
        org=st.sampled_from([ACME, ACME, BOLT]),
    )
    def use(self, tokens: list[tuple[int, int, int]], hours_ago: int, org: Any) -> None:
        at = self.rig.clock.now()
        at = at.fromtimestamp(at.timestamp() - 3600 * hours_ago, at.tzinfo)
        self.do(self.rig.use(tokens, at, org))

    @rule(fault=st.sampled_from(FAULTS), path=st.sampled_from([EVENTS, "/v1/customers", "/event_summaries"]))
    def break_something(self, fault: str, path: str) -> None:
        self.rig.fake.faults.order(fault, path)

    @rule(seconds=st.sampled_from([60, 900, 3700, 7200, 86_400, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.rig.advance(seconds)

    @rule()
    def the_job_runs(self) -> None:
        self.do(self.rig.exports.run())

    @rule(lag_s=st.sampled_from([0, 0, 3600, 4 * 3600]))
    def sums_lag(self, lag_s: int) -> None:
        self.rig.fake.meters.lag_s = lag_s

    @rule()
    def reports_come(self) -> None:
        self.do(self.rig.deliver(self.reports))

    @rule(wrong_s=st.sampled_from([0, 0, 300, -300, 3600, -3600]))
    def the_clock_jumps(self, wrong_s: int) -> None:
        self.rig.clock.wrong_s = wrong_s

    @invariant()
    def no_more_counts_than_was_used(self) -> None:
        """Each window is told once at most: of any identifier there is one event that counts."""
        counted = [event["identifier"] for event in self.rig.fake.meters.counted]
        assert len(counted) == len(set(counted))

    @invariant()
    def nothing_is_sent_again_that_may_be_forgotten(self) -> None:
        for window in self.do(self.rig.windows()):
            if window.sendings > 1:
                assert window.last_sent_at - window.first_sent_at < RESEND_WITHIN

    @invariant()
    def windows_hold_what_is_sealed(self) -> None:
        windows = self.do(self.rig.windows())
        for export in self.do(sql.of_mode(self.rig.exports.engine, Mode.STRIPE_METER)):
            mine = [each for each in windows if each.org_id == export.org_id]
            stands = sum(each.quantity for each in mine if each.status is not WindowStatus.REPLACED)
            assert stands == self._used(export.org_id, export.sealed_seq)

    def _used(self, org: str, through: int) -> int:
        return sum(self.rig.by_seq.get((org, seq), 0) for seq in range(1, through + 1))

    async def _converge(self) -> None:
        self.rig.clock.wrong_s = 0
        self.rig.fake.faults.ordered.clear()
        self.rig.fake.meters.lag_s = 0
        await self.rig.until_quiet(rounds=200)
        assert await self.rig.told() == self.rig.owed()


TestExports = ExportMachine.TestCase
TestExports.settings = settings(
    max_examples=examples(12), stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
