"""Where regions are, what stands in them, what they cost, and where their traffic goes when they are down.

A region (a country or continent: `in`) holds cities (`mumbai`), and these the regions of clouds (`ap-south-1`). Nodes
say any of these names; tenants choose any of them: `in` is all of India, `ap-south-1` that place alone
(architecture document §12, §27; cost multipliers §35.1.1).

Invariant: as for models, the packaged data is read once and never changes. A name that no region knows is a place of
its own, with no fallback and nothing in it.
"""

from collections.abc import Collection, Iterable
from decimal import Decimal
from functools import cache
from importlib import resources
from math import asin, cos, radians, sin, sqrt

import msgspec

from crosslogic.kernel.errors import ConfigurationError

_EARTH_RADIUS_KM = 6371.0


class City(msgspec.Struct, frozen=True):
    """`clouds` are the regions of each cloud that stand here, by their own names. `country` is ISO 3166-1 alpha-2."""

    name: str
    country: str
    latitude: float | None = None
    longitude: float | None = None
    clouds: dict[str, tuple[str, ...]] = {}

    @property
    def id(self) -> str:
        return self.name.lower().replace(" ", "-")


class Region(msgspec.Struct, frozen=True):
    """The first city is the one that distances are measured from. `fallbacks` are in order."""

    id: str
    name: str
    cities: tuple[City, ...] = ()
    cost_multiplier: Decimal = Decimal(1)
    fallbacks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def countries(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(city.country for city in self.cities))

    @property
    def clouds(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for city in self.cities:
            for cloud, names in city.clouds.items():
                found[cloud] = (*found.get(cloud, ()), *names)
        return found


def without(region: Region, names: Collection[str]) -> Region:
    """The region without what others have these names for."""
    cities = []
    for city in region.cities:
        clouds = {cloud: tuple(each for each in here if each not in names) for cloud, here in city.clouds.items()}
        if city.id not in names:
            cities.append(msgspec.structs.replace(city, clouds={cloud: here for cloud, here in clouds.items() if here}))
    aliases = tuple(alias for alias in region.aliases if alias not in names)
    return msgspec.structs.replace(region, cities=tuple(cities), aliases=aliases)


class Regions:
    """All regions that are known; later ones replace earlier ones of the same id."""

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        """Raises ConfigurationError when a name is used twice, or a fallback is of nowhere."""
        self.by_id = {region.id: region for region in regions}
        self._aliases: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._places: dict[str, tuple[float, float]] = {}
        for region in self.by_id.values():
            self._enter(region)
        for region in self.by_id.values():
            for other in region.fallbacks:
                if self.region_of(other) is None:
                    raise ConfigurationError(f"region {region.id!r} falls back to {other!r}, which nobody knows")

    def canonical(self, name: str) -> str:
        """The id of what an alias names; any other name as it is."""
        return self._aliases.get(name, name)

    def within(self, place: str, region: str) -> bool:
        """Whether a place is this region, or stands in it."""
        if place == region:
            return True
        asked = self.canonical(region)
        at: str | None = self.canonical(place)
        while at is not None:
            if at == asked:
                return True
            at = self._parents.get(at)
        return False

    def fallbacks(self, name: str) -> tuple[str, ...]:
        """Where to go from a place when nothing serves there: what it stands in first, then that region's own."""
        at = self._parents.get(self.canonical(name))
        around = []
        while at is not None:
            around.append(at)
            at = self._parents.get(at)
        region = self.region_of(name)
        return (*around, *(() if region is None else region.fallbacks))

    def distance_km(self, one: str, other: str) -> float | None:
        """Between two places, along the surface; None when one of them is not known."""
        here, there = self._places.get(self.canonical(one)), self._places.get(self.canonical(other))
        return None if here is None or there is None else _great_circle_km(here, there)

    def multipliers(self) -> dict[str, Decimal]:
        """What each name of each region costs, over the base price."""
        names = (*self.by_id, *self._aliases, *self._parents)
        found = ((name, self.region_of(name)) for name in names)
        return {name: region.cost_multiplier for name, region in found if region is not None}

    def _enter(self, region: Region) -> None:
        for alias in region.aliases:
            self._claim(alias, region)
            self._aliases[alias] = region.id
        for city in region.cities:
            names = [name for names in city.clouds.values() for name in names]
            for name, parent in ((city.id, region.id), *((name, city.id) for name in names)):
                self._claim(name, region)
                self._parents[name] = parent
            if city.latitude is not None and city.longitude is not None:
                place = city.latitude, city.longitude
                self._places.setdefault(region.id, place)  # the first city's
                self._places.update(dict.fromkeys((city.id, *names), place))

    def _claim(self, name: str, region: Region) -> None:
        if name in self.by_id or name in self._aliases or name in self._parents:
            raise ConfigurationError(f"region {region.id!r} uses the name {name!r}, which is taken; rename one")

    def region_of(self, name: str) -> Region | None:
        """The region that this name is of, or that it stands in."""
        at = self.canonical(name)
        while at in self._parents:
            at = self._parents[at]
        return self.by_id.get(at)


def _great_circle_km(here: tuple[float, float], there: tuple[float, float]) -> float:
    (lat, lon), (other_lat, other_lon) = (tuple(map(radians, place)) for place in (here, there))
    chord = sin((other_lat - lat) / 2) ** 2 + cos(lat) * cos(other_lat) * sin((other_lon - lon) / 2) ** 2
    return 2 * _EARTH_RADIUS_KM * asin(min(1.0, sqrt(chord)))


class _File(msgspec.Struct):
    source: str
    licence: str
    regions: tuple[Region, ...]


@cache
def load_regions() -> tuple[Region, ...]:
    """The packaged regions."""
    data = resources.files("crosslogic.catalog").joinpath("data/regions.json").read_bytes()
    return msgspec.json.decode(data, type=_File).regions
