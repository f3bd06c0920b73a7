"""`/admin/cluster`: the processes of the cloud, which of the control processes leads, and how its nodes are."""

from collections.abc import Awaitable, Callable

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel

from crosslogic.coordination.sql import Process
from crosslogic.fleet.model import Node
from crosslogic.orchestration import placement


class ProcessView(BaseModel):
    id: str
    role: str
    version: str
    address: str
    leads: bool
    age_s: float
    silent_s: float


class NodesView(BaseModel):
    """GPUs are available on healthy nodes that serve nothing; memory is that of GPUs, as agents report it."""

    total_nodes: int
    healthy_nodes: int
    total_gpus: int
    available_gpus: int
    total_memory_mb: int
    used_memory_mb: int


class ClusterView(BaseModel):
    """`leader` is None while nobody leads: for at most a lease's time to live and a third of it."""

    leader: str | None
    processes: list[ProcessView]
    nodes: NodesView


def cluster_router(
    processes: Callable[[], Awaitable[list[Process]]],
    leader_id: Callable[[], Awaitable[str | None]],
    nodes: Callable[[], Awaitable[list[Node]]],
) -> APIRouter:
    router = APIRouter(prefix="/admin/cluster", tags=["cluster"])

    @router.get("")
    async def cluster() -> ClusterView:
        """Everybody heard of within the last seconds."""
        leader = await leader_id()
        views = [
            ProcessView(
                id=process.id,
                role=process.role,
                version=process.version,
                address=process.address,
                leads=process.id == leader,
                age_s=round(process.age_s, 1),
                silent_s=round(max(0.0, process.silent_s), 1),
            )
            for process in await processes()
        ]
        found = placement.health(map(placement.machine_of, await nodes()))
        return ClusterView(leader=leader, processes=views, nodes=NodesView(**msgspec.structs.asdict(found)))

    return router
