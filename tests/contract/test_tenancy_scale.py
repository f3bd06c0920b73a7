"""10,000 orgs with 10 keys each: how long a worker takes to start, and what a look-up costs afterwards."""

import time
import timeit
from datetime import UTC, datetime

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.store.changes import Following
from crosslogic.store.tables import api_keys, environments, orgs
from crosslogic.tenancy.directory import Directory, KeyEntry
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Environment, Org, Role, Status
from crosslogic.tenancy.sync import DirectorySync

ORGS, KEYS = 10_000, 10
START_S = 3.0
HASH = key_hasher()
THEN = datetime(2026, 1, 1, tzinfo=UTC)


async def fill(engine: AsyncEngine) -> None:
    for first in range(0, ORGS, 1_000):
        numbers = range(first, first + 1_000)
        same = {"status": "active", "limits": {}, "created_at": THEN}
        async with engine.begin() as conn:
            await conn.execute(
                insert(orgs),
                [
                    {**same, "id": f"org_{n:06d}", "name": f"o{n}", "billing_plan": "pro", "allowed_models": []}
                    for n in numbers
                ],
            )
            await conn.execute(
                insert(environments),
                [
                    {**same, "id": f"env_{n:06d}", "org_id": f"org_{n:06d}", "name": "prod", "allowed_models": []}
                    for n in numbers
                ],
            )
            await conn.execute(
                insert(api_keys),
                [
                    {
                        **same,
                        "id": f"key_{n:06d}{k}",
                        "org_id": f"org_{n:06d}",
                        "env_id": f"env_{n:06d}",
                        "name": "k",
                        "key_hash": HASH(token(n, k)),
                        "prefix": "clsk_live_000000",
                        "role": "developer",
                        "scoping": {"models": ["m"]} if k == 0 else {},
                        "limits": {"tokens_per_minute": 1_000} if k == 1 else {},
                    }
                    for n in numbers
                    for k in range(KEYS)
                ],
            )


def token(org: int, key: int) -> bytes:
    return b"clsk_live_%027d%06d" % (org, key)


async def test_a_worker_starts_within_three_seconds_and_looks_up_as_quickly_as_ever(engine: AsyncEngine) -> None:
    await fill(engine)
    clock = time.process_time  # of this worker: others may hold the machine
    taken = []
    for _ in range(3):  # other programs may hold the machine: the quickest of three tells what it takes
        directory = Directory(HASH)
        began = clock()
        await Following(engine, [DirectorySync(engine, directory)]).start()
        taken.append(clock() - began)
        if taken[-1] < START_S:
            break
    assert len(directory) == ORGS * KEYS
    assert min(taken) < START_S

    known = token(ORGS - 1, 7)
    principal = directory.resolve(known)
    assert principal is not None
    assert principal.org_id == f"org_{ORGS - 1:06d}"
    digest_s = min(timeit.repeat(lambda: HASH(known), number=5_000, repeat=7))
    resolve_s = min(timeit.repeat(lambda: directory.resolve(known), number=5_000, repeat=7))
    assert resolve_s < 4 * digest_s  # as with a single key (tests/unit/test_tenancy_directory.py)


def test_a_change_of_one_org_among_many_touches_its_own_keys_only() -> None:
    """The feed may bring hundreds of changed orgs at once."""
    org_of = [Org(OrgId(f"org_{n}"), f"o{n}", Status.ACTIVE, THEN) for n in range(ORGS)]
    env_of = [Environment(EnvId(f"env_{n}"), OrgId(f"org_{n}"), "prod", THEN) for n in range(ORGS)]
    directory = Directory(HASH)
    directory.replace(
        org_of,
        env_of,
        (
            KeyEntry(KeyId(f"key_{n}_{k}"), token(n, k), EnvId(f"env_{n}"), Role.DEVELOPER, Status.ACTIVE)
            for n in range(ORGS)
            for k in range(KEYS)
        ),
    )
    change_s = timeit.timeit(lambda: (directory.put_org(org_of[42]), directory.put_environment(env_of[42])), number=500)
    assert change_s < 0.5  # going over all 100,000 keys each time takes several seconds
