"""Placement gives every GPU once, keeps to what a workload asks for, and never moves what stands well."""

from collections import Counter
from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.fleet.model import Node, NodeHealth, NodeStatus, Verdict
from crosslogic.kernel.ids import NodeId
from crosslogic.orchestration.model import Assignment, GpuSlot, Machine, Shortfall, Workload
from crosslogic.orchestration.placement import assign, health, machine_of, rebalance

REGIONS = ("in-mumbai", "us-east")
TYPES = ("A10G", "H100")


@st.composite
def machines(draw: st.DrawFn) -> list[Machine]:
    made = []
    for number in range(draw(st.integers(0, 6))):
        gpus = tuple(
            GpuSlot(
                index,
                80_000,
                draw(st.sampled_from((0, 40_000, 79_000))),
                draw(st.sampled_from((None, None, "other", "ours"))),
            )
            for index in range(draw(st.integers(0, 4)))
        )
        made.append(
            Machine(
                f"node-{number}",
                draw(st.sampled_from(REGIONS)),
                gpus,
                healthy=draw(st.booleans()),
                spot=draw(st.booleans()),
                cost=draw(st.sampled_from((0.0, 1.0))),
                gpu_type=draw(st.sampled_from(TYPES)),
            )
        )
    return made


workloads = st.builds(
    Workload,
    deployment_id=st.just("ours"),
    replicas=st.integers(0, 5),
    gpus=st.integers(1, 3),
    gpu_memory_mb=st.sampled_from((0, 30_000, 80_000)),
    regions=st.sampled_from(((), ("us-east",))),
    gpu_type=st.sampled_from((None, "H100")),
    spot_share=st.sampled_from((0.0, 0.5, 1.0)),
)


@given(workloads, machines())
def test_what_is_assigned_is_free_healthy_and_as_asked(workload: Workload, fleet: list[Machine]) -> None:
    placed = assign(workload, fleet)
    if isinstance(placed, Shortfall):
        assert placed.placed < workload.replicas
        assert placed.reason
        return
    assert len(placed) == workload.replicas
    by_id = {machine.node_id: machine for machine in fleet}
    given_away = Counter((one.node_id, index) for one in placed for index in one.gpu_indices)
    assert all(count == 1 for count in given_away.values())
    spot = 0
    for one in placed:
        machine = by_id[one.node_id]
        gpus = {gpu.index: gpu for gpu in machine.gpus}
        assert machine.healthy
        assert not workload.regions or machine.region in workload.regions
        assert workload.gpu_type in (None, machine.gpu_type)
        assert len(one.gpu_indices) == workload.gpus
        for index in one.gpu_indices:
            assert gpus[index].held_by is None
            assert gpus[index].memory_mb - gpus[index].used_memory_mb >= workload.gpu_memory_mb
        spot += machine.spot
    assert spot <= workload.spot_share * workload.replicas


@given(workloads, machines())
def test_a_shortfall_means_that_one_replica_less_than_it_says_could_not_be_topped(
    workload: Workload, fleet: list[Machine]
) -> None:
    """With a spot share of all, greedy packing is exact: each replica takes equal GPUs of one machine."""
    if workload.spot_share < 1.0:
        return
    room = sum(
        len([g for g in m.gpus if g.held_by is None and g.memory_mb - g.used_memory_mb >= workload.gpu_memory_mb])
        // workload.gpus
        for m in fleet
        if m.healthy
        and (not workload.regions or m.region in workload.regions)
        and workload.gpu_type in (None, m.gpu_type)
    )
    placed = assign(workload, fleet)
    assert isinstance(placed, Shortfall) == (room < workload.replicas)
    if isinstance(placed, Shortfall):
        assert placed.placed == room


@given(workloads, machines())
def test_replicas_spread_before_they_share_a_machine(workload: Workload, fleet: list[Machine]) -> None:
    fleet = [machine for machine in fleet if all(gpu.held_by != "ours" for gpu in machine.gpus)]
    placed = assign(workload, fleet)
    if isinstance(placed, Shortfall) or workload.spot_share < 1.0:
        return
    together = Counter(one.node_id for one in placed)
    if any(count > 1 for count in together.values()):
        # Then no machine that could take one was left empty.
        empty = [machine for machine in fleet if machine.node_id not in together]
        alone = Workload("ours", 1, workload.gpus, workload.gpu_memory_mb, workload.regions, workload.gpu_type)
        assert isinstance(assign(alone, empty), Shortfall)


def held_by(fleet: list[Machine], workload: Workload) -> list[Assignment]:
    found = []
    for machine in fleet:
        indices = [gpu.index for gpu in machine.gpus if gpu.held_by == "ours"]
        for start in range(0, len(indices) - workload.gpus + 1, workload.gpus):
            found.append(Assignment("ours", machine.node_id, tuple(indices[start : start + workload.gpus])))
    return found


@given(workloads, machines())
def test_rebalancing_ends_and_keeps_every_replica(workload: Workload, fleet: list[Machine]) -> None:
    held = held_by(fleet, workload)
    for _ in range(len(held) + 1):
        moves = rebalance([workload], fleet, held)
        if not moves:
            break
        for move in moves:
            assert move.source in held
            held = [move.target if one == move.source else one for one in held]
        fleet = _with_places(fleet, held)
    else:
        raise AssertionError("it moves for ever")
    assert len({(one.node_id, index) for one in held for index in one.gpu_indices}) == sum(
        len(one.gpu_indices) for one in held
    )


def _with_places(fleet: list[Machine], held: list[Assignment]) -> list[Machine]:
    taken = {(one.node_id, index) for one in held for index in one.gpu_indices}
    return [
        Machine(
            machine.node_id,
            machine.region,
            tuple(
                GpuSlot(
                    gpu.index,
                    gpu.memory_mb,
                    gpu.used_memory_mb,
                    "ours"
                    if (machine.node_id, gpu.index) in taken
                    else (gpu.held_by if gpu.held_by != "ours" else None),
                )
                for gpu in machine.gpus
            ),
            machine.healthy,
            machine.spot,
            machine.cost,
            machine.gpu_type,
        )
        for machine in fleet
    ]


def test_what_a_lost_machine_held_moves_and_what_stands_well_does_not() -> None:
    fleet = [
        Machine("lost", "us-east", (GpuSlot(0, 80_000, held_by="ours"),), healthy=False),
        Machine("fine", "us-east", (GpuSlot(0, 80_000, held_by="ours"),)),
        Machine("spare", "us-east", (GpuSlot(0, 80_000),)),
    ]
    workload = Workload("ours", 2, 1, 40_000)
    moves = rebalance([workload], fleet, held_by(fleet, workload))
    assert [(move.source.node_id, move.target.node_id) for move in moves] == [("lost", "spare")]


@given(machines())
def test_health_counts_every_gpu_once(fleet: list[Machine]) -> None:
    found = health(fleet)
    assert found.total_gpus == sum(len(machine.gpus) for machine in fleet)
    assert 0 <= found.available_gpus <= found.total_gpus
    assert found.healthy_nodes <= found.total_nodes == len(fleet)


def test_a_registered_node_is_a_machine_whose_gpus_share_its_memory() -> None:
    node = Node(
        NodeId("gpu-7"), "http://gpu-7", ("llama",), NodeStatus.ACTIVE, datetime(2026, 1, 1, tzinfo=UTC),
        region="in", gpu_count=3, vram_total_mb=100_000, vram_free_mb=40_001,
    )  # fmt: skip
    machine = machine_of(node)
    assert (machine.healthy, machine.region, len(machine.gpus)) == (True, "in", 3)
    assert sum(gpu.memory_mb for gpu in machine.gpus) == 100_000
    assert sum(gpu.used_memory_mb for gpu in machine.gpus) == 59_999
    assert health([machine]).available_gpus == 0, "it serves a model"
    assert health([machine_of(msgspec.structs.replace(node, models=()))]).available_gpus == 3
    for away in (NodeStatus.DRAINING, NodeStatus.DEAD, NodeStatus.STARTING):
        assert health([machine_of(msgspec.structs.replace(node, status=away))]).healthy_nodes == 0
    ejected = NodeHealth(verdict=Verdict.UNHEALTHY, ejected=True)
    assert not machine_of(msgspec.structs.replace(node, health=ejected)).healthy
    assert (
        health([machine_of(msgspec.structs.replace(node, vram_total_mb=None, vram_free_mb=None))]).total_memory_mb == 0
    )
