"""Requests are split between deployments as the shares say, and never at the price of an answer."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from crosslogic.scheduling.split import split_of

shares = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), max_size=6)


@given(shares, st.floats(0, 1, exclude_max=True))
def test_only_who_has_a_share_is_chosen(given_shares: dict[str, int], draw: float) -> None:
    split = split_of(given_shares)
    if split is None:
        assert not any(given_shares.values())
    else:
        assert given_shares[split.choose("org", draw)] > 0


@given(shares)
def test_each_gets_its_share_to_the_thousandth(given_shares: dict[str, int]) -> None:
    split = split_of(given_shares)
    total = sum(given_shares.values())
    if split is None:
        return
    chosen = [split.choose("org", (number + 0.5) / total) for number in range(total)]
    assert {name: chosen.count(name) for name in given_shares} == given_shares


def test_an_org_stays_where_it_is_and_each_test_draws_its_orgs_anew() -> None:
    one = split_of({"a": 500, "b": 500}, by_org=True, salt="1")
    two = split_of({"a": 500, "b": 500}, by_org=True, salt="2")
    assert one is not None
    assert two is not None
    orgs = [f"org_{number}" for number in range(400)]
    random = Random(1)
    assert all(one.choose(org, random.random()) == one.choose(org, random.random()) for org in orgs)
    moved = sum(one.choose(org, 0) != two.choose(org, 0) for org in orgs)
    assert 120 < moved < 280
