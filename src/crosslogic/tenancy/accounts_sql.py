"""Users of orgs, operators of the platform, and stored plans in the database; written as all tenancy is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import OperatorId, OrgId, UserId
from crosslogic.store.tables import operators, orgs, plans, users
from crosslogic.tenancy import rows
from crosslogic.tenancy.model import Operator, Plan, Role, Status, User
from crosslogic.tenancy.sql import PLAN_CHANGED, USER_CHANGED
from crosslogic.tenancy.writing import Writer, check_ref, locked, not_found, page_of


class UsersSql:
    """Raises NotFound, also for a user of another org, and Conflict."""

    def __init__(self, writer: Writer) -> None:
        self._rows = writer

    async def add(self, user: User) -> None:
        taken = f"the org has already a user {user.email}"
        await self._rows.add(users, rows.user_columns(user), USER_CHANGED, taken)

    async def user(self, org_id: OrgId, ref: str) -> User:
        """The org's user of this id or e-mail address."""
        if not ref.isprintable() or not _encodable(ref):
            raise not_found("user")
        this = users.c.email == ref.lower() if "@" in ref else users.c.id == ref
        query = select(users).where(users.c.org_id == org_id, this)
        return rows.to_user(await self._rows.one(query, "user"))

    async def users(
        self,
        org_id: OrgId | None = None,
        *,
        email_prefix: str = "",
        role: Role | None = None,
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[User]:
        query = select(users)
        if org_id is not None:
            query = query.where(users.c.org_id == org_id)
        if email_prefix:
            query = query.where(users.c.email.startswith(email_prefix.lower(), autoescape=True))
        if role is not None:
            query = query.where(users.c.role == role.value)
        query = page_of(query, users, status=status, after=after, limit=limit)
        return [rows.to_user(row) for row in await self._rows.all(query)]

    async def change(self, user_id: UserId, values: Mapping[str, Any]) -> User:
        return rows.to_user(await self._rows.change(users, user_id, dict(values), USER_CHANGED))


class OperatorsSql:
    """Raises NotFound and Conflict."""

    def __init__(self, writer: Writer) -> None:
        self._rows = writer

    async def add(self, operator: Operator) -> None:
        taken = f"there is already an operator named {operator.name!r}"
        await self._rows.add(operators, rows.operator_columns(operator), "operator", taken)

    async def operator(self, operator_id: OperatorId) -> Operator:
        check_ref(operator_id, "operator")
        return rows.to_operator(
            await self._rows.one(select(operators).where(operators.c.id == operator_id), "operator")
        )

    async def by_hash(self, key_hash: bytes) -> Operator | None:
        found = await self._rows.all(select(operators).where(operators.c.key_hash == key_hash))
        return rows.to_operator(found[0]) if found else None

    async def operators(
        self,
        *,
        name_prefix: str = "",
        role: Role | None = None,
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Operator]:
        query = select(operators)
        if name_prefix:
            query = query.where(operators.c.name.startswith(name_prefix, autoescape=True))
        if role is not None:
            query = query.where(operators.c.role == role.value)
        query = page_of(query, operators, status=status, after=after, limit=limit)
        return [rows.to_operator(row) for row in await self._rows.all(query)]

    async def change(self, operator_id: OperatorId, values: Mapping[str, Any]) -> Operator:
        """Revoking is final: raises Conflict."""
        async with self._rows.engine.begin() as conn:
            before = await locked(conn, operators, operator_id, "operator")
            if before["status"] == Status.REVOKED.value:
                if values.get("status") != Status.REVOKED.value:
                    raise Conflict("this operator is revoked, which is final; create a new one")
                return rows.to_operator(before)
            return rows.to_operator(await self._rows.change_in(conn, operators, before, values, "operator"))


class PlansSql:
    """Plans that operators made or changed."""

    def __init__(self, writer: Writer) -> None:
        self._rows = writer

    async def plans(self) -> list[Plan]:
        return [rows.to_plan(row) for row in await self._rows.all(select(plans))]

    async def put(self, plan: Plan, now: datetime) -> None:
        """Create the plan, or replace it as a whole."""
        values = {"id": plan.id, "terms": rows.plan_document(plan), "updated_at": now}
        try:
            async with self._rows.engine.begin() as conn:
                query = select(plans).where(plans.c.id == plan.id).with_for_update()
                before = (await conn.execute(query)).mappings().first()
                if before is None:
                    await self._rows.add_in(conn, plans, values, PLAN_CHANGED)
                else:
                    await self._rows.change_in(conn, plans, before, values, PLAN_CHANGED, verb="change")
        except IntegrityError:
            raise Conflict("somebody else creates this plan right now; try again") from None

    async def remove(self, plan_id: str, *, still_defined: bool) -> None:
        """Forget a stored plan. Raises NotFound; Conflict when orgs are on it and nothing else defines it."""
        check_ref(plan_id, "plan")
        async with self._rows.engine.begin() as conn:
            before = await locked(conn, plans, plan_id, "plan")
            used = await conn.scalar(select(func.count()).where(orgs.c.billing_plan == plan_id))
            if used and not still_defined:
                raise Conflict(f"{used} orgs are on this plan; move them first")
            await conn.execute(delete(plans).where(plans.c.id == plan_id))
            await self._rows.announce(conn, "plan.remove", PLAN_CHANGED, before=dict(before), after=None)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
