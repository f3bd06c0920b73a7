"""Which of a model's deployments a request is for, while there are several. Pure.

Invariant: over many requests each deployment gets its share, to the thousandth. A deployment without a share gets no
request as long as another one can serve; but a share is a wish and not a wall: where the chosen one has no node, any
other serves (a rollout must never cost an answer). Models without an entry here cost nothing to ask about.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping

import msgspec


class Split(msgspec.Struct, frozen=True):
    """`deployments` with the ends of their shares, cumulated: shares 900 and 100 have the ends 900 and 1000.

    `by_org`: all requests of an org go to the same one, so that its users see one behaviour (an A/B test). `salt`
    makes the orgs of each test others than those of the last.
    """

    deployments: tuple[str, ...]
    ends: tuple[int, ...]
    by_org: bool = False
    salt: str = ""

    def choose(self, org_id: str, draw: float) -> str:
        """`draw` is uniform in [0, 1)."""
        if self.by_org:
            digest = hashlib.blake2b(f"{self.salt}\n{org_id}".encode(), digest_size=8).digest()
            draw = int.from_bytes(digest, "big") / 2**64
        place = bisect_right(self.ends, int(draw * self.ends[-1]))
        return self.deployments[min(place, len(self.deployments) - 1)]


def split_of(shares: Mapping[str, int], *, by_org: bool = False, salt: str = "") -> Split | None:
    """None when nobody has a share: then there is nothing to choose."""
    ends, total = [], 0
    given = {deployment: share for deployment, share in sorted(shares.items()) if share > 0}
    for share in given.values():
        total += share
        ends.append(total)
    return Split(tuple(given), tuple(ends), by_org, salt) if given else None
