"""Whether the regions that a key may be served in have a place in common with the one that its requests ask for. Pure.

Names nest (`catalog/regions.py`): a key for `in` is good in an environment that is pinned to `ap-south-1`, and one for
`ap-south-1` in an environment that asks for all of `in`, where it is then served in that place alone. Answered once for
each principal, never for a request.
"""

from collections.abc import Iterable

from crosslogic.catalog.regions import Regions


def meets(region: str, allowed: Iterable[str] | None, regions: Regions) -> bool:
    """`allowed` None: everywhere."""
    return allowed is None or any(regions.within(region, other) or regions.within(other, region) for other in allowed)
