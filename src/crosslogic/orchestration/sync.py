"""Keeps a gateway's picture of the splits equal to the database. `store.changes.Following` drives it."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.orchestration.model import WHOLE, DeploymentStatus, RolloutKind, RolloutStatus
from crosslogic.orchestration.registry import DEPLOYMENT_CHANGED, ROLLOUT_CHANGED, UNDEPLOYED
from crosslogic.scheduling.split import Split, split_of
from crosslogic.store.changes import Change
from crosslogic.store.engine import reading
from crosslogic.store.tables import deployments, rollouts

OnSplits = Callable[[Mapping[str, Split]], None]
_KINDS = frozenset({DEPLOYMENT_CHANGED, ROLLOUT_CHANGED})


class SplitSync:
    def __init__(self, engine: AsyncEngine, on_splits: OnSplits) -> None:
        self._engine = engine
        self._on_splits = on_splits

    async def load(self) -> None:
        self._on_splits(await read_splits(self._engine))

    async def apply(self, changes: Sequence[Change]) -> None:
        if any(change.kind in _KINDS for change in changes):
            await self.load()


async def read_splits(engine: AsyncEngine) -> dict[str, Split]:
    """By model, for those of which more than one deployment is there, or whose old nodes are of none.

    Deployments that end are there until they are retired: else their nodes would get requests again for as long as it
    takes to drain them.
    """
    async with reading(engine) as conn:
        served = (
            await conn.execute(
                select(deployments.c.model_id, deployments.c.id, deployments.c.share).where(
                    deployments.c.status != DeploymentStatus.RETIRED.value
                )
            )
        ).all()
        running = {
            row.model_id: row
            for row in await conn.execute(
                select(rollouts.c.model_id, rollouts.c.id, rollouts.c.kind, rollouts.c.old).where(
                    rollouts.c.status == RolloutStatus.RUNNING.value
                )
            )
        }
    shares: dict[str, dict[str, int]] = defaultdict(dict)
    for model_id, deployment_id, share in served:
        shares[model_id][deployment_id] = share
    splits = {}
    for model_id, of_model in shares.items():
        rollout = running.get(model_id)
        if rollout is not None and rollout.old == UNDEPLOYED:
            of_model[UNDEPLOYED] = WHOLE - sum(of_model.values())
        if rollout is None and len(of_model) < 2:
            continue
        test = rollout if rollout is not None and rollout.kind == RolloutKind.AB.value else None
        split = split_of(of_model, by_org=test is not None, salt="" if test is None else test.id)
        if split is not None:
            splits[model_id] = split
    return splits
