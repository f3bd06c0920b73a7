"""Keeps a Directory equal to the database: everything at start, then what the change feed names.

Invariant: a committed change is in the directory within the feed's interval and one query. While the database is
away the directory stands still and keeps answering; all that was missed follows when it is back.
"""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.ids import KeyId
from crosslogic.store.changes import Change
from crosslogic.tenancy.directory import Directory, KeyEntry
from crosslogic.tenancy.sql import (
    ENVIRONMENT_CHANGED,
    KEY_CHANGED,
    ORG_CHANGED,
    PLAN_CHANGED,
    USER_CHANGED,
    TenancySql,
)

# Rows become values in the event loop's thread: a page is small enough (about 5 ms) not to be felt by requests.
_PAGE = 500
_FIRST_PAGE = 5_000  # at the start nobody waits for an answer yet


class DirectorySync:
    """`store.changes.Following` drives it."""

    def __init__(self, engine: AsyncEngine, directory: Directory) -> None:
        self._sql = TenancySql(engine)
        self._directory = directory
        self._loaded = False

    async def load(self) -> None:
        if self._loaded:
            await self._load(_PAGE)
            return
        with _uncollected():
            await self._load(_FIRST_PAGE)
        self._loaded = True

    async def _load(self, page_size: int) -> None:
        orgs = await self._sql.all_orgs()
        environments = await self._sql.all_environments()
        users = await self._sql.all_users()
        plans = await self._sql.all_plans()
        entries: list[KeyEntry] = []
        page = await self._sql.entries_after("", page_size)
        while page:
            entries += page
            page = await self._sql.entries_after(page[-1].id, page_size)
        self._directory.replace(orgs, environments, entries, users)
        self._directory.store_plans(plans)

    async def apply(self, changes: Sequence[Change]) -> None:
        if any(change.kind == PLAN_CHANGED for change in changes):
            self._directory.store_plans(await self._sql.all_plans())
        for ids in _pages(changes, ORG_CHANGED):
            for org in await self._sql.all_orgs(ids):
                self._directory.put_org(org)
        for ids in _pages(changes, ENVIRONMENT_CHANGED):
            for env in await self._sql.all_environments(ids):
                self._directory.put_environment(env)
        for ids in _pages(changes, USER_CHANGED):
            for user in await self._sql.all_users(ids):
                self._directory.put_user(user)
        for ids in _pages(changes, KEY_CHANGED):
            found = {entry.id: entry for entry in await self._sql.entries(ids)}
            for key_id in ids:
                entry = found.get(KeyId(key_id))
                if entry is None:
                    self._directory.remove_key(KeyId(key_id))
                else:
                    self._directory.put_key(entry)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: it would walk again and again over hundreds of thousands of rows that all stay,
    and take half of the time of a start."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _pages(changes: Iterable[Change], kind: str) -> Iterator[list[str]]:
    """The ids of one kind, each once, a page at a time."""
    ids = list(dict.fromkeys(change.entity_id for change in changes if change.kind == kind))
    for start in range(0, len(ids), _PAGE):
        yield ids[start : start + _PAGE]
