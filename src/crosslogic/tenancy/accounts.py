"""What administrators may do with users, operators and plans, and how they read the audit log.

Users belong to an org and have one of its roles. Operators run the platform: they belong to no org, and each has an
admin key of their own, so that the audit log tells them apart.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import InvalidRequest, NotFound
from crosslogic.kernel.ids import OperatorId, OrgId, UserId, new_operator_id, new_user_id
from crosslogic.limits.model import NO_LIMITS, Limits
from crosslogic.tenancy import audit_sql, keys, rows, rules
from crosslogic.tenancy.accounts_sql import OperatorsSql, PlansSql, UsersSql
from crosslogic.tenancy.audit import AuditEntry, Verdict
from crosslogic.tenancy.model import Operator, Org, Plan, Role, Status, User
from crosslogic.tenancy.plans import PlanInForce, in_force
from crosslogic.tenancy.writing import Writer


class UserService:
    """Raises NotFound, also for a user of another org, Conflict and InvalidRequest."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._sql = UsersSql(writer)
        self._clock = clock

    async def create(
        self, org_id: OrgId, email: str, *, name: str, role: Role = Role.DEVELOPER, limits: Limits = NO_LIMITS
    ) -> User:
        user = User(
            id=new_user_id(),
            org_id=org_id,
            email=rules.email(email),
            name=rules.shown_name(name, "a user's name"),
            role=role,
            created_at=self._clock.now(),
            limits=rules.checked(limits),
        )
        await self._sql.add(user)
        return user

    async def user(self, org_id: OrgId, ref: str) -> User:
        """The org's user of this id or e-mail address."""
        return await self._sql.user(org_id, ref)

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
        return await self._sql.users(
            org_id,
            email_prefix=email_prefix,
            role=role,
            status=status,
            after=after,
            limit=rules.page_limit(limit),
        )

    async def change(
        self,
        org_id: OrgId,
        ref: str,
        *,
        name: str | None = None,
        role: Role | None = None,
        status: Status | None = None,
        limits: Limits | None = None,
    ) -> User:
        """Change what is given; None leaves as it is."""
        user = await self._sql.user(org_id, ref)
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = rules.shown_name(name, "a user's name")
        if role is not None:
            values["role"] = role.value
        if status is not None:
            values["status"] = status.value
        if limits is not None:
            values["limits"] = rows.limits_document(rules.checked(limits))
        return await self._sql.change(UserId(user.id), values)


class CreatedOperator(msgspec.Struct, frozen=True):
    """A new operator with the admin key, which is shown once and kept nowhere."""

    operator: Operator
    token: str

    def __repr__(self) -> str:
        return f"CreatedOperator({self.operator.id}, {self.operator.prefix}…)"


class OperatorService:
    """Raises NotFound, Conflict and InvalidRequest."""

    def __init__(self, writer: Writer, hash_key: keys.KeyHasher, clock: Clock) -> None:
        self._sql = OperatorsSql(writer)
        self._hash_key = hash_key
        self._clock = clock

    async def create(self, name: str, *, role: Role = Role.ADMIN) -> CreatedOperator:
        if role is Role.DEVELOPER:
            raise InvalidRequest("an operator is admin or read-only", param="role")
        token = keys.generate(keys.KeyKind.ADMIN)
        operator = Operator(
            id=new_operator_id(),
            name=rules.shown_name(name, "an operator's name"),
            key_hash=self._hash_key(token.encode()),
            prefix=keys.shown_prefix(token),
            role=role,
            status=Status.ACTIVE,
            created_at=self._clock.now(),
        )
        await self._sql.add(operator)
        return CreatedOperator(operator, token)

    async def of_token(self, token: str) -> Operator | None:
        """The operator whose admin key this is, if any; the caller looks at status and role."""
        if keys.kind_of(token) is not keys.KeyKind.ADMIN:
            return None
        return await self._sql.by_hash(self._hash_key(token.encode()))

    async def operator(self, operator_id: OperatorId) -> Operator:
        return await self._sql.operator(operator_id)

    async def operators(
        self,
        *,
        name_prefix: str = "",
        role: Role | None = None,
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Operator]:
        return await self._sql.operators(
            name_prefix=name_prefix, role=role, status=status, after=after, limit=rules.page_limit(limit)
        )

    async def change(self, operator_id: OperatorId, *, status: Status) -> Operator:
        """Suspend, take up again, or revoke for good."""
        await self._sql.operator(operator_id)
        return await self._sql.change(operator_id, {"status": status.value})


class PlanService:
    """Plans in force; those that operators write come before the configured and the shipped ones."""

    def __init__(self, writer: Writer, configured: Callable[[], Iterable[Plan]], clock: Clock) -> None:
        self._sql = PlansSql(writer)
        self._configured = configured
        self._clock = clock

    async def plans(self) -> list[PlanInForce]:
        """All of them: there are few."""
        return list(in_force(await self._sql.plans(), self._configured()).values())

    async def plans_seen_by(self, org: Org) -> list[PlanInForce]:
        """What an org may see: its own plan, and those that everybody is offered. A plan that operators wrote
        under a name of its own is an agreement with somebody."""
        offered = in_force((), self._configured())
        return [found for found in await self.plans() if found.plan.id in offered or found.plan.id == org.billing_plan]

    async def plan(self, plan_id: str) -> PlanInForce:
        """Raises NotFound."""
        found = in_force(await self._sql.plans(), self._configured()).get(plan_id)
        if found is None:
            raise NotFound("there is no such plan")
        return found

    async def check_known(self, plan_id: str) -> None:
        """Raises InvalidRequest for a plan that nobody defined: a typing error must not lift all ceilings."""
        known = in_force(await self._sql.plans(), self._configured())
        if plan_id not in known:
            raise InvalidRequest(f"there is no plan of this name; there are {', '.join(known)}", param="billing_plan")

    async def put(self, plan: Plan) -> PlanInForce:
        """Create or replace a plan. Takes effect on every gateway within a second. Raises InvalidRequest."""
        await self._sql.put(rules.plan(plan), self._clock.now())
        return await self.plan(plan.id)

    async def remove(self, plan_id: str) -> None:
        """Forget what operators wrote; a configured or shipped plan of this name is in force again.

        Raises NotFound when operators wrote nothing; Conflict when orgs would be left without a plan.
        """
        await self._sql.remove(plan_id, still_defined=plan_id in in_force((), self._configured()))


class AuditService:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.trail = writer.trail

    async def entries(
        self,
        *,
        org_id: str | None = None,
        actor_id: str | None = None,
        action: str | None = None,
        entity_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """Newest first, with start <= time < end.

        `cursor` is the number of the last entry of the page before. Raises InvalidRequest.
        """
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise InvalidRequest("cursor is no cursor of this list", param="cursor")
        return await audit_sql.entries(
            self._writer.engine,
            org_id=org_id,
            actor_id=actor_id,
            action=action,
            entity_id=entity_id,
            start=start,
            end=end,
            before_seq=None if cursor is None else int(cursor),
            limit=rules.page_limit(limit),
        )

    async def order(
        self, action: str, entity_id: str, *, org_id: str, details: Mapping[str, Any], kind: str, message: str
    ) -> None:
        """Write down an order about what is no row of the database, and put `message` into the change feed."""
        await self._writer.order(action, entity_id, org_id=org_id, details=details, kind=kind, message=message)

    async def verify(self) -> Verdict:
        return await self._writer.trail.verify(self._writer.engine)
