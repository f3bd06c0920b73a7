"""Which fault a specification means, and which request it strikes."""

from random import Random

import pytest

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator.faults import NO_FAULT, Fault, FaultPlan, FaultRule, parse_fault


@pytest.mark.parametrize(
    ("specification", "fault"),
    [
        ("error=503;retry_after=2", Fault(error=503, retry_after_s=2.0)),
        ("reset", Fault(reset=True)),
        (" silence ; ", Fault(silence=True)),
        ("slow_first_token=0.5;cut=3", Fault(slow_first_token_s=0.5, cut=3)),
        ("stall=0", Fault(stall=0)),
        ("no_done;no_usage", Fault(no_done=True, no_usage=True)),
        ("crash=2", Fault(crash=2)),
    ],
)
def test_specifications_are_read(specification: str, fault: Fault) -> None:
    assert parse_fault(specification) == fault


@pytest.mark.parametrize(
    "specification",
    ["", ";", "explode", "error", "error=200", "error=x", "cut", "cut=-1", "cut=1.5", "reset=1", "retry_after=nan"],
)
def test_anything_else_is_refused(specification: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_fault(specification)


def test_a_counted_rule_strikes_so_often_and_only_its_path() -> None:
    plan = FaultPlan(Random(0))
    plan.add(FaultRule(fault="reset", count=2, path="/a"))
    assert [plan.draw(p).reset for p in ("/b", "/a", "/a", "/a")] == [False, True, True, False]
    assert plan.rules == []


def test_a_probability_strikes_that_share_the_same_way_each_time() -> None:
    def strikes() -> list[bool]:
        plan = FaultPlan(Random(0))
        plan.add(FaultRule(fault="error=500", probability=0.25), seed=11)
        return [plan.draw("/a") is not NO_FAULT for _ in range(2000)]

    first = strikes()
    assert first == strikes()
    assert 0.22 < sum(first) / len(first) < 0.28


def test_rules_that_make_no_sense_are_refused_and_clearing_helps() -> None:
    plan = FaultPlan(Random(0))
    for rule in (FaultRule(fault="reset", count=0), FaultRule(fault="reset", probability=1.5), FaultRule(fault="?")):
        with pytest.raises(InvalidRequest):
            plan.add(rule)
    plan.add(FaultRule(fault="reset"))
    plan.clear()
    assert plan.draw("/a") is NO_FAULT
