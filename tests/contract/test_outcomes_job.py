"""The job that holds deployments against their forecasts, on both databases: once each, of their own nodes alone."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from crosslogic.compass.deployments.model import PlannedDeployment
from crosslogic.compass.manifests.model import Surroundings, Targets
from crosslogic.compass.outcomes.service import OutcomeService
from crosslogic.compass.outcomes.sql import OutcomesSql
from crosslogic.compass.ranking.service import PlanningService
from crosslogic.fleet.registry import Registration
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.outcomes import LATE, OutcomesJob
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import first_request_id
from crosslogic.store.tables import notices
from tests.contract.test_compass_outcomes import CANDIDATE, LIMITS, seen
from tests.contract.test_planned_nodes import NODES, Rig
from tests.contract.test_planned_nodes import rig as rig
from tests.contract.test_store_tables import put, usage_row
from tests.manifest_samples import PLAN
from tests.planner_samples import SPEC, planner

WINDOW_S = 300.0


class Watch:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.clock = ManualClock()
        self.store = OutcomesSql(rig.engine, self.clock)
        self.service = OutcomeService(
            rig.engine,
            self.store,
            rig.service.store,
            PlanningService(rig.engine, self.clock),
            serving=rig.service.serving_nodes,
        )
        self._rows = 0

    def job(self) -> OutcomesJob:
        """As a process has it that has just begun."""
        store = self.rig.service.store
        return OutcomesJob(self.service, store, Outbox(self.rig.engine), self.clock, WINDOW_S)

    async def deployed(self, around: Surroundings = NODES, **fields: Any) -> PlannedDeployment:
        plan = self.rig.plan(slo=Targets(300.0, 25.0), kv_tokens=400_000, **fields)
        known = await self.rig.service.plan(plan, around)
        return await self.rig.service.deploy(known.id, self.rig.org_id)

    async def traffic(self, start: datetime, *, itl_ms: float = 40.0, count: int = 120, **fields: Any) -> None:
        """Answers of 201 tokens, spread over a window."""
        rows = []
        for number in range(count):
            self._rows += 1
            at = start + timedelta(seconds=WINDOW_S * number / count)
            row = {
                "seq": self._rows,
                "timestamp": at,
                "org_id": self.rig.org_id,
                "model": PLAN.model,
                "node_id": "n1",
                "failed_nodes": None,
                "prompt_tokens": 512,
                "completion_tokens": 201,
                "first_token_ms": 100,
                "latency_ms": int(100 + 200 * itl_ms),
            }
            rows.append(
                usage_row(f"{first_request_id(int(at.timestamp() * 1000))}{self._rows:020x}", **{**row, **fields})
            )
        await put(self.rig.engine, *rows)

    def later(self, seconds: float) -> datetime:
        self.clock.advance(seconds)
        return self.clock.now()


@pytest.fixture
async def watch(rig: Rig) -> Watch:
    return Watch(rig)


async def start_of(watch: Watch) -> datetime:
    """The deployment runs on one node; where its first whole window begins."""
    known = await watch.deployed(max_replicas=1, min_replicas=1)
    (made,) = await watch.rig.wanted()
    await watch.rig.join(1, made.id)
    now = watch.clock.now()
    assert known.applied_revision == 1
    return datetime.fromtimestamp(now.timestamp() // WINDOW_S * WINDOW_S + WINDOW_S, tz=now.tzinfo)


async def test_each_window_is_judged_once_and_drift_is_told_once(watch: Watch) -> None:
    start = await start_of(watch)
    for number in range(4):
        await watch.traffic(start + timedelta(seconds=number * WINDOW_S))
    watch.later((start - watch.clock.now()).total_seconds() + 4 * WINDOW_S + LATE.total_seconds())
    job = watch.job()
    assert await job.round() == 4
    assert await job.round() == 0
    (known,) = await watch.rig.service.store.page(watch.rig.org_id)
    judged = [each for _, each in await watch.store.page(known.id, after=None, limit=10)][::-1]
    assert [each.observation.start for each in judged] == [
        start + timedelta(seconds=number * WINDOW_S) for number in range(4)
    ]
    assert judged[0].itl_error is not None
    assert judged[-1].itl_error is not None
    assert judged[0].itl_error > 0.5
    assert abs(judged[-1].itl_error) < judged[0].itl_error / 2
    assert judged[0].met == {"ttft": True, "itl": False}
    bias = await watch.store.bias(watch.rig.org_id, judged_configuration(known))
    # A process that begins anew looks at the last hour again: nothing is learnt or told twice.
    assert await watch.job().round() == 4
    assert await watch.store.bias(watch.rig.org_id, judged_configuration(known)) == bias
    assert len(await watch.store.page(known.id, after=None, limit=10)) == 4


def judged_configuration(known: PlannedDeployment) -> str:
    assert known.revision == 1
    return f"{PLAN.model}@1xh100_sxm/fp8/vllm"


async def test_drift_is_raised_as_a_notice_of_its_org(watch: Watch) -> None:
    """Ever slower windows: whatever was learnt, the next one is beyond it."""
    start = await start_of(watch)
    for number, itl_ms in enumerate((40.0, 90.0, 200.0, 450.0)):
        await watch.traffic(start + timedelta(seconds=number * WINDOW_S), itl_ms=itl_ms)
    watch.later((start - watch.clock.now()).total_seconds() + 4 * WINDOW_S + LATE.total_seconds())
    await watch.job().round()
    await watch.job().round()
    async with watch.rig.engine.connect() as conn:
        rows = (await conn.execute(select(notices))).mappings().all()
    told = [row for row in rows if row["facts"]["figure"] == "itl"]
    assert {(row["kind"], row["org_id"], row["severity"]) for row in told} == {
        ("forecast_drift", watch.rig.org_id, "error")
    }
    assert len({row["once"] for row in rows}) == len(rows)
    assert "is slower than forecast" in told[0]["title"]
    assert "Its target is broken" in told[0]["text"]
    (known,) = await watch.rig.service.store.page(watch.rig.org_id)
    drifting = await watch.store.page(known.id, drift=True, after=None, limit=10)
    steady = await watch.store.page(known.id, drift=False, after=None, limit=10)
    assert (len(drifting), len(steady)) == (2, 2)


async def test_what_others_serve_and_what_is_not_over_yet_is_not_counted(watch: Watch) -> None:
    start = await start_of(watch)
    await watch.traffic(start, node_id="of-others")
    watch.later((start - watch.clock.now()).total_seconds() + WINDOW_S + LATE.total_seconds() - 1)
    job = watch.job()
    assert await job.round() == 0
    await watch.traffic(start)
    watch.later(1)
    assert await job.round() == 1


async def test_in_a_cluster_without_prometheus_nothing_is_guessed(watch: Watch) -> None:
    """The same model of the same org is served by nodes that are not this deployment's."""
    plan = watch.rig.plan(name="in-cluster")
    known = await watch.rig.service.plan(plan, Surroundings())
    await watch.rig.service.store.set_state(
        known,
        type(known.state).APPLIED,
        "planned_deployment.applied",
        watch.rig.service._trail,
        revision=1,
    )
    start = watch.clock.now() + timedelta(seconds=WINDOW_S)
    await watch.traffic(start)
    watch.later(4 * WINDOW_S)
    assert await watch.job().round() == 0
    # Once the gateway has a node at the deployment's own address, what that one served is the deployment's.
    address = "http://in-cluster-metrics.tenant-acme.svc:8080"
    await watch.rig.fleet.register(Registration(address, (PLAN.model,), node_id="n1"))
    assert await watch.job().round() == 1


async def test_a_part_of_a_window_teaches_no_second_time(watch: Watch) -> None:
    await start_of(watch)
    (known,) = await watch.rig.service.store.page(watch.rig.org_id)
    model = planner().model(CANDIDATE, SPEC)
    await watch.store.record(watch.rig.org_id, known.id, "c", seen(), model, LIMITS)
    first = seen()
    late = msgspec.structs.replace(
        first, start=first.start + timedelta(minutes=2), end=first.end + timedelta(minutes=2)
    )
    with pytest.raises(Conflict, match="a part of this window"):
        await watch.store.record(watch.rig.org_id, known.id, "c", late, model, LIMITS)
    await watch.store.record(watch.rig.org_id, known.id, "c", seen(1), model, LIMITS)
