"""Which replica goes on which GPUs of which machine (`AssignWorkload`, `Rebalance`, `MonitorHealth`). Pure.

Invariants: a GPU is given to one replica only; a replica's GPUs are of one machine, healthy, in an allowed region and
of the wanted type, and each has the memory free; either all replicas find a place or none is given one.

Replicas of a deployment are spread over machines as far as they go, so that one lost machine costs one replica; within
a machine, and between equally good machines, they are packed tightly, so that large replicas find room later.
"""

from collections.abc import Iterable, Sequence

import msgspec

from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.orchestration.model import (
    Assignment,
    ClusterHealth,
    GpuSlot,
    Machine,
    Move,
    Shortfall,
    Workload,
)


def assign(workload: Workload, machines: Sequence[Machine]) -> list[Assignment] | Shortfall:
    """A place for each replica, or what is missing. What the machines hold already stays where it is."""
    if workload.replicas <= 0:
        return []
    if workload.gpus <= 0 or workload.gpu_memory_mb < 0:
        raise ValueError("a replica needs at least one GPU, and no negative memory")
    most_spot = int(workload.spot_share * workload.replicas)
    left = {machine.node_id: _free(machine, workload) for machine in machines if _fits(machine, workload)}
    by_id = {machine.node_id: machine for machine in machines}
    own = {node_id: _replicas_here(by_id[node_id], workload) for node_id in left}
    placed: list[Assignment] = []
    spot = 0
    while len(placed) < workload.replicas:
        usable = [
            by_id[node_id]
            for node_id, slots in left.items()
            if len(slots) >= workload.gpus and (not by_id[node_id].spot or spot < most_spot)
        ]
        if not usable:
            return Shortfall(len(placed), workload.replicas, _why(workload, machines, spot >= most_spot))
        best = min(usable, key=lambda m: (own[m.node_id], m.cost, len(left[m.node_id]), m.node_id))
        slots = left[best.node_id]
        # The fullest GPUs that still fit: those with more room stay whole for who needs it.
        chosen = sorted(slots, key=lambda slot: (slot.memory_mb - slot.used_memory_mb, slot.index))[: workload.gpus]
        left[best.node_id] = [slot for slot in slots if slot not in chosen]
        own[best.node_id] += 1
        spot += best.spot
        indices = tuple(sorted(slot.index for slot in chosen))
        placed.append(Assignment(workload.deployment_id, best.node_id, indices))
    return placed


def rebalance(workloads: Sequence[Workload], machines: Sequence[Machine], held: Sequence[Assignment]) -> list[Move]:
    """Moves that take replicas away from unhealthy machines and from machines that hold several of one deployment.

    Never more moves than that: a replica that stands well stays. A replica for which there is no better place stays
    too. Moves are in the order in which they can be done, each on what the ones before left free.
    """
    wanted = {workload.deployment_id: workload for workload in workloads}
    now = {machine.node_id: machine for machine in machines}
    moves: list[Move] = []
    for assignment in _in_need(held, now, wanted):
        workload = wanted[assignment.deployment_id]
        source = now.get(assignment.node_id)
        rest = [machine for machine in now.values() if machine.node_id != assignment.node_id]
        one = msgspec.structs.replace(workload, replicas=1, spot_share=1.0)
        found = assign(one, rest)
        if isinstance(found, Shortfall):
            continue
        target = found[0]
        crowded = _replicas_here(now[target.node_id], workload)
        if source is not None and source.healthy and crowded + 1 >= _replicas_here(source, workload):
            continue  # no better than where it is
        moves.append(Move(workload.deployment_id, assignment, target))
        now[target.node_id] = _with(now[target.node_id], target)
        if source is not None:
            now[source.node_id] = _without(source, assignment)
    return moves


def health(machines: Iterable[Machine]) -> ClusterHealth:
    """GPUs count as available on healthy machines only, while nobody holds them."""
    machines = list(machines)
    gpus = [(machine, gpu) for machine in machines for gpu in machine.gpus]
    return ClusterHealth(
        total_nodes=len(machines),
        healthy_nodes=sum(machine.healthy for machine in machines),
        total_gpus=len(gpus),
        available_gpus=sum(machine.healthy and gpu.held_by is None for machine, gpu in gpus),
        total_memory_mb=sum(gpu.memory_mb for _, gpu in gpus),
        used_memory_mb=sum(gpu.used_memory_mb for _, gpu in gpus),
    )


def machine_of(node: Node) -> Machine:
    """A registered node as placement sees it: memory is told for all of its GPUs together, and whoever serves a model
    has all of them."""
    holder = node.deployment_id or (node.models[0] if node.models and node.status is not NodeStatus.DEAD else None)
    total, used = node.vram_total_mb or 0, 0
    if node.vram_free_mb is not None:
        used = max(0, total - node.vram_free_mb)
    slots = tuple(
        GpuSlot(index, _part(total, node.gpu_count, index), _part(used, node.gpu_count, index), holder)
        for index in range(node.gpu_count)
    )
    healthy = node.status is NodeStatus.ACTIVE and not node.health.ejected
    price = node.spot_price_usd_per_hour or 0.0
    return Machine(node.id, node.region, slots, healthy, node.spot, price, node.gpu_type)


def _part(amount: int, parts: int, index: int) -> int:
    """One of so many whole parts that add up to the amount."""
    return amount * (index + 1) // parts - amount * index // parts


def _fits(machine: Machine, workload: Workload) -> bool:
    return (
        machine.healthy
        and (not workload.regions or machine.region in workload.regions)
        and (workload.gpu_type is None or machine.gpu_type == workload.gpu_type)
    )


def _free(machine: Machine, workload: Workload) -> list[GpuSlot]:
    return [
        gpu
        for gpu in machine.gpus
        if gpu.held_by is None and gpu.memory_mb - gpu.used_memory_mb >= workload.gpu_memory_mb
    ]


def _replicas_here(machine: Machine, workload: Workload) -> int:
    return sum(gpu.held_by == workload.deployment_id for gpu in machine.gpus) // workload.gpus


def _why(workload: Workload, machines: Sequence[Machine], spot_full: bool) -> str:
    """The first of the conditions that leaves nothing, in words."""
    healthy = [machine for machine in machines if machine.healthy]
    if not healthy:
        return "no healthy machine"
    here = [machine for machine in healthy if not workload.regions or machine.region in workload.regions]
    if not here:
        return f"no healthy machine in {', '.join(workload.regions)}"
    typed = [machine for machine in here if workload.gpu_type in (None, machine.gpu_type)]
    if not typed:
        return f"no {workload.gpu_type}"
    if not any(len(machine.gpus) >= workload.gpus for machine in typed):
        return f"no machine with {workload.gpus} GPUs"
    if spot_full and any(machine.spot for machine in typed):
        return "only spot machines are left, and their share is used up"
    return f"no {workload.gpus} GPUs of one machine with {workload.gpu_memory_mb:,} MB free on each"


def _in_need(held: Sequence[Assignment], machines: dict[str, Machine], wanted: dict[str, Workload]) -> list[Assignment]:
    """Those on machines that are lost or unhealthy first, then all but one of each deployment on a machine."""
    lost, crowded = [], []
    seen: set[tuple[str, str]] = set()
    for assignment in held:
        if assignment.deployment_id not in wanted:
            continue
        machine = machines.get(assignment.node_id)
        place = (assignment.deployment_id, assignment.node_id)
        if machine is None or not machine.healthy:
            lost.append(assignment)
        elif place in seen:
            crowded.append(assignment)
        seen.add(place)
    return [*lost, *crowded]


def _with(machine: Machine, assignment: Assignment) -> Machine:
    return _holding(machine, assignment, assignment.deployment_id)


def _without(machine: Machine, assignment: Assignment) -> Machine:
    return _holding(machine, assignment, None)


def _holding(machine: Machine, assignment: Assignment, holder: str | None) -> Machine:
    gpus = tuple(
        msgspec.structs.replace(gpu, held_by=holder) if gpu.index in assignment.gpu_indices else gpu
        for gpu in machine.gpus
    )
    return msgspec.structs.replace(machine, gpus=gpus)
