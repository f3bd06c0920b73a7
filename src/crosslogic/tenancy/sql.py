"""Orgs, environments and keys in the database.

Invariant: every change commits together with its rows in the audit log and the change feed, or not at all.
Lists are in order of id, which is order of creation; `after` is the last id of the page before.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Table, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.store.tables import api_keys, environments, orgs, plans, usage_daily, usage_records, usage_starts, users
from crosslogic.tenancy import rows
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.directory import KeyEntry
from crosslogic.tenancy.model import ApiKey, Environment, Org, Plan, Role, Status, SuspendedFor, User
from crosslogic.tenancy.writing import Writer, check_ref, locked, page_of

ORG_CHANGED = "org"
ENVIRONMENT_CHANGED = "environment"
KEY_CHANGED = "key"
USER_CHANGED = "user"
PLAN_CHANGED = "plan"

_REVOKED = "the key is revoked, which is final; create a new one"

_ENTRY_COLUMNS = [
    column
    for column in api_keys.c
    if column.name not in ("org_id", "name", "prefix", "created_at", "replaced_by", "rotation_ref")
]


class TenancySql:
    """One method, one transaction. Raises NotFound, Conflict, and what SQLAlchemy raises when the database is away."""

    def __init__(self, engine: AsyncEngine, trail: AuditTrail | None = None) -> None:
        self.engine = engine
        self._rows = Writer(engine, trail or AuditTrail())

    def recording(self, trail: AuditTrail) -> "TenancySql":
        """The same tables, with changes written down as `trail` does."""
        return TenancySql(self.engine, trail)

    # orgs

    async def add_org(self, org: Org) -> None:
        """Raises Conflict when the name is taken."""
        await self._rows.add(orgs, rows.org_columns(org), ORG_CHANGED, f"there is already an org named {org.name!r}")

    async def org(self, ref: str) -> Org:
        """The org of this id or name. Raises NotFound."""
        check_ref(ref, "org")
        column = orgs.c.id if ref.startswith("org_") else orgs.c.name
        return rows.to_org(await self._rows.one(select(orgs).where(column == ref), "org"))

    async def orgs(
        self,
        *,
        name_prefix: str = "",
        status: Status | None = None,
        billing_plan: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Org]:
        query = _named(select(orgs), orgs, name_prefix)
        if billing_plan is not None:
            query = query.where(orgs.c.billing_plan == billing_plan)
        query = page_of(query, orgs, status=status, after=after, limit=limit)
        return [rows.to_org(row) for row in await self._rows.all(query)]

    async def change_org(self, org_id: OrgId, values: Mapping[str, Any]) -> Org:
        """Change these columns. Raises NotFound."""
        return rows.to_org(await self._rows.change(orgs, org_id, dict(values), ORG_CHANGED))

    async def take_up(self, org_id: OrgId, suspended_for: SuspendedFor) -> bool:
        """Make an org active that was suspended for this; False where it is not so any more. Raises NotFound."""
        async with self.engine.begin() as conn:
            before = await locked(conn, orgs, org_id, ORG_CHANGED)
            if (before["status"], before["suspended_for"]) != (Status.SUSPENDED.value, suspended_for.value):
                return False
            values = {"status": Status.ACTIVE.value, "suspended_for": None}
            await self._rows.change_in(conn, orgs, before, values, ORG_CHANGED)
            return True

    async def suspended(self, suspended_for: SuspendedFor) -> list[OrgId]:
        """Orgs that the system suspended for this."""
        query = select(orgs.c.id).where(
            orgs.c.suspended_for == suspended_for.value, orgs.c.status == Status.SUSPENDED.value
        )
        return [OrgId(row["id"]) for row in await self._rows.all(query.order_by(orgs.c.id))]

    # environments

    async def add_environment(self, env: Environment) -> None:
        """Raises NotFound without the org, Conflict when it has an environment of that name."""
        await self.org(env.org_id)
        taken = f"the org has already an environment named {env.name!r}"
        await self._rows.add(environments, rows.environment_columns(env), ENVIRONMENT_CHANGED, taken)

    async def environment(self, org_id: OrgId, ref: str) -> Environment:
        """The org's environment of this id or name. Raises NotFound, also for one of another org."""
        check_ref(ref, "environment")
        column = environments.c.id if ref.startswith("env_") else environments.c.name
        query = select(environments).where(environments.c.org_id == org_id, column == ref)
        return rows.to_environment(await self._rows.one(query, "environment"))

    async def environments(
        self,
        org_id: OrgId,
        *,
        name_prefix: str = "",
        status: Status | None = None,
        region: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Environment]:
        query = _named(select(environments).where(environments.c.org_id == org_id), environments, name_prefix)
        if region is not None:
            query = query.where(environments.c.region == region)
        query = page_of(query, environments, status=status, after=after, limit=limit)
        return [rows.to_environment(row) for row in await self._rows.all(query)]

    async def change_environment(self, env_id: EnvId, values: Mapping[str, Any]) -> Environment:
        """Change these columns. Raises NotFound."""
        row = await self._rows.change(environments, env_id, dict(values), ENVIRONMENT_CHANGED)
        return rows.to_environment(row)

    # keys

    async def add_key(self, key: ApiKey) -> None:
        """Raises Conflict when the very same key exists, NotFound when the environment is not the org's."""
        await self.environment(key.org_id, key.env_id)
        await self._rows.add(api_keys, rows.key_columns(key), KEY_CHANGED, "this key exists already")

    async def key(self, key_id: KeyId, org_id: OrgId | None = None) -> ApiKey:
        """Raises NotFound, also for a key of another org than `org_id`."""
        check_ref(key_id, "key")
        query = _keys_with_last_use().where(api_keys.c.id == key_id)
        if org_id is not None:
            query = query.where(api_keys.c.org_id == org_id)
        return rows.to_key(await self._rows.one(query, "key"))

    async def key_by_hash(self, key_hash: bytes) -> ApiKey | None:
        found = await self._rows.all(select(api_keys).where(api_keys.c.key_hash == key_hash))
        return rows.to_key(found[0]) if found else None

    async def keys(
        self,
        *,
        org_id: OrgId | None = None,
        env_id: EnvId | None = None,
        name_prefix: str = "",
        status: Status | None = None,
        role: Role | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[ApiKey]:
        """Keys with `last_used_at`, which the usage ledger knows (its newest rows may lag by a flush)."""
        query = _named(_keys_with_last_use(), api_keys, name_prefix)
        if org_id is not None:
            query = query.where(api_keys.c.org_id == org_id)
        if env_id is not None:
            query = query.where(api_keys.c.env_id == env_id)
        if role is not None:
            query = query.where(api_keys.c.role == role.value)
        query = page_of(query, api_keys, status=status, after=after, limit=limit)
        return [rows.to_key(row) for row in await self._rows.all(query)]

    async def change_key(self, key_id: KeyId, values: dict[str, Any]) -> ApiKey:
        """Change these columns. Raises NotFound; Conflict for a revoked key, which stays as it is for good.

        The row is locked first: revoking is final, also when two change the key at once.
        """
        async with self.engine.begin() as conn:
            before = await locked(conn, api_keys, key_id, "key")
            if values and before["status"] != Status.REVOKED.value:
                await self._rows.change_in(conn, api_keys, before, values, KEY_CHANGED)
            elif values and values.get("status") != Status.REVOKED.value:  # revoking again is no contradiction
                raise Conflict(_REVOKED)
        return await self.key(key_id)

    async def rotate_key(
        self, old_id: KeyId, new: ApiKey, *, now: datetime, ends_at: datetime | None, ref: str | None
    ) -> ApiKey | None:
        """Put `new` in the place of a key, which works until `ends_at` (None: is revoked now).

        Returns the successor of an earlier rotation instead, and writes nothing, when this one repeats it: under
        the same `ref`, or without one while the old key still works. None: `new` is in its place. Raises
        NotFound; Conflict for a key that is revoked, expired, or was rotated under another `ref`.
        """
        async with self.engine.begin() as conn:
            old = await locked(conn, api_keys, old_id, "key")
            revoked = old["status"] == Status.REVOKED.value
            ended = revoked or (old["expires_at"] is not None and old["expires_at"] <= now)
            successor = old["replaced_by"]
            if successor is not None and (not ended if ref is None else ref == old["rotation_ref"]):
                query = select(api_keys).where(api_keys.c.id == successor)
                return rows.to_key((await conn.execute(query)).mappings().one())
            if successor is not None:
                raise Conflict(f"this key was rotated already; its successor is {successor}")
            if ended:
                raise Conflict(_REVOKED if revoked else "the key has expired; create a new one")
            try:
                await self._rows.add_in(conn, api_keys, rows.key_columns(new), KEY_CHANGED)
            except IntegrityError:
                raise Conflict("this key exists already") from None
            values: dict[str, Any] = {"replaced_by": new.id, "rotation_ref": ref}
            if ends_at is None:
                values["status"] = Status.REVOKED.value
            else:
                values["expires_at"] = min(ends_at, old["expires_at"] or ends_at)
            await self._rows.change_in(conn, api_keys, old, values, KEY_CHANGED, verb="rotate")
        return None

    # what the directory is made of

    async def all_orgs(self, ids: Sequence[str] | None = None) -> list[Org]:
        return [rows.to_org(row) for row in await self._rows.all(_of_ids(select(orgs), orgs, ids))]

    async def all_environments(self, ids: Sequence[str] | None = None) -> list[Environment]:
        query = _of_ids(select(environments), environments, ids)
        return [rows.to_environment(row) for row in await self._rows.all(query)]

    async def all_users(self, ids: Sequence[str] | None = None) -> list[User]:
        return [rows.to_user(row) for row in await self._rows.all(_of_ids(select(users), users, ids))]

    async def all_plans(self) -> list[Plan]:
        return [rows.to_plan(row) for row in await self._rows.all(select(plans))]

    async def entries(self, ids: Sequence[str]) -> list[KeyEntry]:
        query = _of_ids(select(*_ENTRY_COLUMNS), api_keys, ids)
        return [rows.to_entry(row) for row in await self._rows.all(query)]

    async def entries_after(self, after: str, limit: int) -> list[KeyEntry]:
        """A page of all keys. The first is after ''."""
        query = select(*_ENTRY_COLUMNS).where(api_keys.c.id > after).order_by(api_keys.c.id).limit(limit)
        return [rows.to_entry(row) for row in await self._rows.all(query)]


def _keys_with_last_use() -> Select[Any]:
    """Of a key whose rows were dropped for their age, the day is left."""
    row = select(func.max(usage_records.c.timestamp)).where(usage_records.c.key_id == api_keys.c.id).scalar_subquery()
    daily, start = usage_daily.c, usage_starts.c
    day = (
        select(func.max(daily.at))
        .join(usage_starts, start.org_id == daily.org_id)
        .where(daily.org_id == api_keys.c.org_id, daily.key_id == api_keys.c.id, daily.at < start.cutoff)
        .scalar_subquery()
    )
    return select(api_keys, func.coalesce(row, day).label("last_used_at"))


def _named(query: Select[Any], table: Table, prefix: str) -> Select[Any]:
    return query.where(table.c.name.startswith(prefix, autoescape=True)) if prefix else query


def _of_ids(query: Select[Any], table: Table, ids: Sequence[str] | None) -> Select[Any]:
    return query if ids is None else query.where(table.c.id.in_(ids))
