"""Orgs, environments and keys in the database.

Invariant: every change commits together with its row in the change feed, or not at all.
Lists are in order of id, which is order of creation; `after` is the last id of the page before.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, Select, Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.limits.model import Limits
from crosslogic.store.changes import append_change
from crosslogic.store.engine import reading
from crosslogic.store.tables import api_keys, environments, orgs, usage_records
from crosslogic.tenancy import rows
from crosslogic.tenancy.directory import KeyEntry
from crosslogic.tenancy.model import ApiKey, Environment, Org, Status

ORG_CHANGED = "org"
ENVIRONMENT_CHANGED = "environment"
KEY_CHANGED = "key"

_REVOKED = "the key is revoked, which is final; create a new one"

_ENTRY_COLUMNS = [
    column for column in api_keys.c if column.name not in ("org_id", "name", "prefix", "created_by", "created_at")
]


class TenancySql:
    """One method, one transaction. Raises NotFound, Conflict, and what SQLAlchemy raises when the database is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    # orgs

    async def add_org(self, org: Org) -> None:
        """Raises Conflict when the name is taken."""
        await self._add(orgs, rows.org_columns(org), ORG_CHANGED, f"there is already an org named {org.name!r}")

    async def org(self, ref: str) -> Org:
        """The org of this id or name. Raises NotFound."""
        _check_ref(ref, "org")
        column = orgs.c.id if ref.startswith("org_") else orgs.c.name
        return rows.to_org(await self._one(select(orgs).where(column == ref), "org"))

    async def orgs(
        self,
        *,
        name_prefix: str = "",
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Org]:
        query = _page(select(orgs), orgs, name_prefix=name_prefix, status=status, after=after, limit=limit)
        return [rows.to_org(row) for row in await self._all(query)]

    async def change_org(
        self,
        org_id: OrgId,
        *,
        status: Status | None = None,
        limits: Limits | None = None,
        allowed_models: Sequence[str] | None = None,
        billing_plan: str | None = None,
    ) -> Org:
        """Change what is given; None leaves as it is. Raises NotFound."""
        values = _changed(status=status, limits=limits, allowed_models=allowed_models)
        if billing_plan is not None:
            values["billing_plan"] = billing_plan
        return rows.to_org(await self._change(orgs, org_id, values, ORG_CHANGED, "org"))

    # environments

    async def add_environment(self, env: Environment) -> None:
        """Raises NotFound without the org, Conflict when it has an environment of that name."""
        await self.org(env.org_id)
        taken = f"the org has already an environment named {env.name!r}"
        await self._add(environments, rows.environment_columns(env), ENVIRONMENT_CHANGED, taken)

    async def environment(self, org_id: OrgId, ref: str) -> Environment:
        """The org's environment of this id or name. Raises NotFound, also for one of another org."""
        _check_ref(ref, "environment")
        column = environments.c.id if ref.startswith("env_") else environments.c.name
        query = select(environments).where(environments.c.org_id == org_id, column == ref)
        return rows.to_environment(await self._one(query, "environment"))

    async def environments(
        self,
        org_id: OrgId,
        *,
        name_prefix: str = "",
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Environment]:
        query = select(environments).where(environments.c.org_id == org_id)
        query = _page(query, environments, name_prefix=name_prefix, status=status, after=after, limit=limit)
        return [rows.to_environment(row) for row in await self._all(query)]

    async def change_environment(
        self,
        env_id: EnvId,
        *,
        status: Status | None = None,
        limits: Limits | None = None,
        allowed_models: Sequence[str] | None = None,
    ) -> Environment:
        """Change what is given; None leaves as it is. Raises NotFound."""
        values = _changed(status=status, limits=limits, allowed_models=allowed_models)
        row = await self._change(environments, env_id, values, ENVIRONMENT_CHANGED, "environment")
        return rows.to_environment(row)

    # keys

    async def add_key(self, key: ApiKey, *, replaces: KeyId | None = None) -> None:
        """Add a key and, in the same transaction, revoke the one that it replaces.

        Raises Conflict when the very same key exists or the replaced one is revoked already, NotFound when the
        environment is not the org's.
        """
        await self.environment(key.org_id, key.env_id)
        try:
            async with self._engine.begin() as conn:
                await conn.execute(insert(api_keys).values(rows.key_columns(key)))
                if replaces is not None:
                    if not await _change_unrevoked(conn, replaces, {"status": Status.REVOKED.value}):
                        raise Conflict(_REVOKED)
                    await append_change(conn, KEY_CHANGED, replaces)
                await append_change(conn, KEY_CHANGED, key.id)
        except IntegrityError:
            raise Conflict("this key exists already") from None

    async def key(self, key_id: KeyId) -> ApiKey:
        """Raises NotFound."""
        _check_ref(key_id, "key")
        return rows.to_key(await self._one(_keys_with_last_use().where(api_keys.c.id == key_id), "key"))

    async def key_by_hash(self, key_hash: bytes) -> ApiKey | None:
        found = await self._all(select(api_keys).where(api_keys.c.key_hash == key_hash))
        return rows.to_key(found[0]) if found else None

    async def keys(
        self,
        *,
        org_id: OrgId | None = None,
        env_id: EnvId | None = None,
        name_prefix: str = "",
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[ApiKey]:
        """Keys with `last_used_at`, which the usage ledger knows (its newest rows may lag by a flush)."""
        query = _keys_with_last_use()
        if org_id is not None:
            query = query.where(api_keys.c.org_id == org_id)
        if env_id is not None:
            query = query.where(api_keys.c.env_id == env_id)
        query = _page(query, api_keys, name_prefix=name_prefix, status=status, after=after, limit=limit)
        return [rows.to_key(row) for row in await self._all(query)]

    async def change_key(self, key_id: KeyId, *, status: Status | None = None, limits: Limits | None = None) -> ApiKey:
        """Change what is given. Raises NotFound; Conflict for a revoked key, which stays as it is for good."""
        _check_ref(key_id, "key")
        values = _changed(status=status, limits=limits, allowed_models=None)
        async with self._engine.begin() as conn:
            if values and await _change_unrevoked(conn, key_id, values):
                await append_change(conn, KEY_CHANGED, key_id)
                values = {}
        key = await self.key(key_id)
        if values and status is not key.status:  # nothing was changed, and revoking again is no contradiction
            raise Conflict(_REVOKED)
        return key

    # what the directory is made of

    async def all_orgs(self, ids: Sequence[str] | None = None) -> list[Org]:
        return [rows.to_org(row) for row in await self._all(_of_ids(select(orgs), orgs, ids))]

    async def all_environments(self, ids: Sequence[str] | None = None) -> list[Environment]:
        query = _of_ids(select(environments), environments, ids)
        return [rows.to_environment(row) for row in await self._all(query)]

    async def entries(self, ids: Sequence[str]) -> list[KeyEntry]:
        query = _of_ids(select(*_ENTRY_COLUMNS), api_keys, ids)
        return [rows.to_entry(row) for row in await self._all(query)]

    async def entries_after(self, after: str, limit: int) -> list[KeyEntry]:
        """A page of all keys. The first is after ''."""
        query = select(*_ENTRY_COLUMNS).where(api_keys.c.id > after).order_by(api_keys.c.id).limit(limit)
        return [rows.to_entry(row) for row in await self._all(query)]

    async def _add(self, table: Table, values: dict[str, Any], kind: str, taken: str) -> None:
        try:
            async with self._engine.begin() as conn:
                await conn.execute(insert(table).values(values))
                await append_change(conn, kind, values["id"])
        except IntegrityError:
            raise Conflict(taken) from None

    async def _change(self, table: Table, entity_id: str, values: dict[str, Any], kind: str, word: str) -> RowMapping:
        async with self._engine.begin() as conn:
            if values:
                await conn.execute(update(table).where(table.c.id == entity_id).values(values))
                await append_change(conn, kind, entity_id)
            row = (await conn.execute(select(table).where(table.c.id == entity_id))).mappings().first()
            if row is None:
                raise NotFound(f"there is no such {word}")
            return row

    async def _one(self, query: Select[Any], word: str) -> RowMapping:
        found = await self._all(query)
        if not found:
            raise NotFound(f"there is no such {word}")
        return found[0]

    async def _all(self, query: Select[Any]) -> Sequence[RowMapping]:
        async with reading(self._engine) as conn:
            found: Sequence[RowMapping] = (await conn.execute(query)).mappings().all()
            return found


def _check_ref(ref: str, word: str) -> None:
    """Ids and names are ASCII; other text may not even be encodable for the database (NUL, lone surrogates)."""
    if not (ref.isascii() and ref.isprintable()):
        raise NotFound(f"there is no such {word}")


async def _change_unrevoked(conn: AsyncConnection, key_id: KeyId, values: dict[str, Any]) -> bool:
    """False when there is no such key, or it is revoked.

    The condition stands in the statement itself: revoking is final, also when two change the key at once.
    """
    done = await conn.execute(
        update(api_keys).where(api_keys.c.id == key_id, api_keys.c.status != Status.REVOKED.value).values(values)
    )
    return bool(done.rowcount)


def _keys_with_last_use() -> Select[Any]:
    last_used_at = (
        select(func.max(usage_records.c.timestamp))
        .where(usage_records.c.key_id == api_keys.c.id)
        .scalar_subquery()
        .label("last_used_at")
    )
    return select(api_keys, last_used_at)


def _page(
    query: Select[Any], table: Table, *, name_prefix: str, status: Status | None, after: str | None, limit: int
) -> Select[Any]:
    if name_prefix:
        query = query.where(table.c.name.startswith(name_prefix, autoescape=True))
    if status is not None:
        query = query.where(table.c.status == status.value)
    if after is not None:
        query = query.where(table.c.id > after)
    return query.order_by(table.c.id).limit(limit)


def _of_ids(query: Select[Any], table: Table, ids: Sequence[str] | None) -> Select[Any]:
    return query if ids is None else query.where(table.c.id.in_(ids))


def _changed(*, status: Status | None, limits: Limits | None, allowed_models: Sequence[str] | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if status is not None:
        values["status"] = status.value
    if limits is not None:
        values["limits"] = rows.limits_document(limits)
    if allowed_models is not None:
        values["allowed_models"] = list(allowed_models)
    return values
