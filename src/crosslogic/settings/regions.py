"""Settings of regions: which there are, and what happens when one is down. (Where we stand is `server.region`.)"""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from crosslogic.settings.values import Section, Texts, list_as_tuple

_ID = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


class RegionSettings(Section):
    """One region, added to the shipped ones or in the place of the one of this id."""

    id: str = Field(pattern=_ID, description="Its id, as `in` or `ap-south-1`.")
    name: str = Field(default="", description="For people; the id when absent.")
    city: str = Field(default="", description="Its main city; the region's id when absent.")
    country: str = Field(default="", pattern="^([A-Z]{2})?$", description="ISO 3166-1 code of two letters.")
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = Field(default=None, description="Degrees north.")
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = Field(default=None, description="Degrees east.")
    members: Texts = Field(default=(), description="Names that nodes here may say as their region.")
    fallbacks: Texts = Field(default=(), description="Regions that serve when this one is down, best first.")
    cost_multiplier: Annotated[Decimal, Field(ge=0, le=1000, strict=False)] = Field(
        default=Decimal(1), description="Price here, over the base price."
    )


class RegionsSettings(Section):
    """Where requests go ([regions](regions.md))."""

    mode: Literal["pinned", "latency"] = Field(
        default="pinned", description="`latency`: what names no region goes to the nearest one, as it is measured."
    )
    failover_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.2, description="How much of the requests of a region that is down may be served elsewhere."
    )
    catalogue: Annotated[tuple[RegionSettings, ...], list_as_tuple] = Field(
        default=(), description="Regions besides the shipped ones, or in their place."
    )
