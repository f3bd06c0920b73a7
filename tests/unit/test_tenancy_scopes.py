"""What a key is good for: networks, endpoints, models, regions; and what the question costs."""

import time
import timeit
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.tenancy.model import Feature, Principal, Role
from crosslogic.tenancy.networks import canonical, compiled
from crosslogic.tenancy.scope_check import MANAGEMENT, comes_from_elsewhere, refusal_of

ANYBODY = Principal(
    org_id=OrgId("org_1"),
    org_name="acme",
    env_id=EnvId("env_1"),
    env_name="prod",
    key_id=KeyId("key_1"),
    role=Role.DEVELOPER,
    region=None,
    allowed_models=None,
    scopes=(),
)


def restricted(**changed: object) -> Principal:
    return msgspec.structs.replace(ANYBODY, restricted=True, **changed)


@pytest.mark.parametrize(
    ("block", "address", "inside"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("0.0.0.0/0", "203.0.113.9", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("::/0", "2001:db8::1", True),
        ("::/0", "10.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),  # an IPv4 caller on a dual-stack socket
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("10.0.0.0/8", "", False),
        ("10.0.0.0/8", "10.0.0", False),
        ("10.0.0.0/8", "localhost", False),
        ("10.0.0.0/8", "010.0.0.1", False),
        ("10.0.0.0/8", None, False),
    ],
)
def test_an_address_lies_in_a_block_or_not(block: str, address: str | None, inside: bool) -> None:
    assert compiled([block]).contain(address) is inside


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_membership_is_that_of_the_standard_library(one: object, other: object, prefix: int) -> None:
    base = ip_address(str(one))
    block = ip_network((base, min(prefix, base.max_prefixlen)), strict=False)
    mapped = [getattr(each, "ipv4_mapped", None) for each in (block.network_address, ip_address(str(other)))]
    if not any(mapped):
        assert compiled([str(block)]).contain(str(other)) is (ip_address(str(other)) in block)


@pytest.mark.parametrize(
    ("written", "kept"),
    [(" 10.0.0.7/8 ", "10.0.0.0/8"), ("192.0.2.1", "192.0.2.1/32"), ("2001:DB8:0::1/32", "2001:db8::/32")],
)
def test_a_block_has_one_spelling(written: str, kept: str) -> None:
    assert canonical(written) == kept


@pytest.mark.parametrize("wrong", ["", "10.0.0.0/33", "10.0.0", "2001:db8::/129", "any", "10.0.0.0/8/8", "1" * 400])
def test_what_is_no_block_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the standard library's own, as documented
        canonical(wrong)


@pytest.mark.parametrize(
    ("principal", "asked", "refusal"),
    [
        (ANYBODY, {}, None),
        (restricted(allowed_endpoints=frozenset({"chat/completions"})), {}, None),
        (restricted(allowed_endpoints=frozenset({"embeddings"})), {}, "endpoint_not_allowed"),
        (restricted(allowed_models=frozenset({"m"})), {"model": "m"}, None),
        (restricted(allowed_models=frozenset({"m"})), {"model": "n"}, "model_not_allowed"),
        (restricted(allowed_models=frozenset()), {"model": "m"}, "model_not_allowed"),
        (restricted(allowed_models=frozenset({"m"})), {}, None),  # before the model is known
        (restricted(allowed_regions=frozenset({"eu"})), {}, None),
        (restricted(allowed_regions=frozenset({"eu"}), region_allowed=False), {}, "region_not_allowed"),
        (restricted(features=frozenset()), {}, "plan_without_api_access"),
        (restricted(features=frozenset({Feature.API_ACCESS})), {}, None),
    ],
)
def test_a_request_outside_of_the_scope_says_why(
    principal: Principal, asked: dict[str, str], refusal: str | None
) -> None:
    assert refusal_of(principal, "chat/completions", **asked) == refusal


def test_management_happens_in_no_region() -> None:
    assert refusal_of(restricted(region_allowed=False), MANAGEMENT) is None


@pytest.mark.parametrize(("address", "elsewhere"), [("10.1.1.1", False), ("11.1.1.1", True), (None, True), ("", True)])
def test_a_key_is_good_in_its_networks_only(address: str | None, elsewhere: bool) -> None:
    assert comes_from_elsewhere(restricted(networks=compiled(["10.0.0.0/8"])), address) is elsewhere
    assert not comes_from_elsewhere(ANYBODY, address)


def test_a_key_without_restrictions_costs_less_than_a_microsecond() -> None:
    seconds = min(
        timeit.repeat(
            lambda: refusal_of(ANYBODY, "chat/completions", "m"),
            timer=time.process_time,
            number=10_000,
            repeat=7,
        )
    )
    assert seconds / 10_000 < 1e-6
