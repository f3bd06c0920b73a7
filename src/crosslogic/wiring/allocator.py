"""Chooses who shares out resources: the database, or nobody."""

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.capacity.allocations.model import Totals
from crosslogic.capacity.allocations.null import NullAllocator
from crosslogic.capacity.allocations.ports import ResourceAllocator
from crosslogic.capacity.allocations.sql import SqlAllocator
from crosslogic.kernel.clock import SystemClock
from crosslogic.settings.model import Settings
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.wiring.queue import MOST_PER_NODE


def new_allocator(settings: Settings, engine: AsyncEngine, hash_key: KeyHasher) -> ResourceAllocator:
    resources = settings.resources
    if not resources.enable_reservations:
        return NullAllocator()
    configured = Totals(resources.total_gpu_memory_mb, resources.total_cpu_cores)
    most_per_node = settings.scheduling.max_requests_per_node or MOST_PER_NODE
    return SqlAllocator(engine, hash_key, SystemClock(), configured, most_per_node)
