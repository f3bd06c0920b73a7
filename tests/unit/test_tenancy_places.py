"""Regions of keys and of environments are compared as the catalogue nests them, once for each key."""

from datetime import UTC, datetime

import pytest

from crosslogic.catalog.regions import Regions, load_regions
from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.tenancy.directory import Directory, KeyEntry
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Environment, Org, Principal, Role, Scoping, Status
from crosslogic.tenancy.places import meets

HASH = key_hasher()
THEN = datetime(2026, 1, 1, tzinfo=UTC)
REGIONS = Regions(load_regions())


@pytest.mark.parametrize(
    ("region", "allowed", "met"),
    [
        ("ap-south-1", None, True),
        ("ap-south-1", ["ap-south-1"], True),
        ("ap-south-1", ["mumbai"], True),
        ("ap-south-1", ["in"], True),
        ("ap-south-1", ["india"], True),  # an alias
        ("in", ["ap-south-1"], True),  # it is served in that part of it
        ("ap-south-1", ["asia-south1"], False),  # of another cloud, in the same city
        ("ap-south-1", ["eu"], False),
        ("ap-south-1", ["eu", "in"], True),
        ("ap-south-1", [], False),
        ("rack-7", ["rack-7"], True),  # nobody's, so a place of its own
        ("rack-7", ["rack-8"], False),
        ("rack-7", ["in"], False),
    ],
)
def test_regions_meet_where_one_lies_in_the_other(region: str, allowed: list[str] | None, met: bool) -> None:
    assert meets(region, allowed, REGIONS) is met


def principal(directory: Directory, env_region: str | None, scope: str, org_regions: tuple[str, ...] = ()) -> Principal:
    org = Org(OrgId("org_1"), "acme", Status.ACTIVE, THEN, region_preferences=org_regions)
    env = Environment(EnvId("env_1"), org.id, "prod", THEN, region=env_region)
    key = KeyEntry(
        KeyId("key_1"), HASH(b"token"), env.id, Role.DEVELOPER, Status.ACTIVE, scoping=Scoping(regions=(scope,))
    )
    directory.replace([org], [env], [key])
    found = directory.resolve(b"token")
    assert found is not None
    return found


def test_a_key_for_a_country_is_good_in_an_environment_of_its_city() -> None:
    directory = Directory(HASH, regions=REGIONS)
    assert principal(directory, "ap-south-1", "in").region_allowed
    assert not principal(directory, "ap-south-1", "eu").region_allowed
    assert principal(directory, None, "eu").region_allowed, "it asks for no region"


def test_without_a_catalogue_names_are_just_names() -> None:
    directory = Directory(HASH)
    assert principal(directory, "ap-south-1", "ap-south-1").region_allowed
    assert not principal(directory, "ap-south-1", "in").region_allowed


def test_of_an_orgs_preferences_those_remain_that_meet_the_keys() -> None:
    directory = Directory(HASH, regions=REGIONS)
    found = principal(directory, "ap-south-1", "in", ("mumbai", "eu", "asia-south1"))
    assert found.region_fallbacks == ("mumbai", "asia-south1")
    assert found.allowed_regions == {"in"}
