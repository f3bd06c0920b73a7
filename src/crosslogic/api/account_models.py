"""Bodies of users, operators, plans and the audit log. Unknown fields are refused here as well."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, Field

from crosslogic.api.limit_models import LimitsBody, LimitsView, ViewedLimits, limits_or_none
from crosslogic.api.models import Body, Suspension, View, Word
from crosslogic.api.usage_models import exact_usd
from crosslogic.kernel.money import pusd_of
from crosslogic.tenancy.audit import AuditEntry, Verdict
from crosslogic.tenancy.model import Feature, Operator, Plan, QueuePolicy, Role, Status, User
from crosslogic.tenancy.plans import PlanInForce, PlanSource

Usd = Annotated[Decimal, Field(ge=0, le=10**6, max_digits=19, decimal_places=12)]


class UserCreate(Body):
    email: Word
    name: Word
    role: Role = Role.DEVELOPER
    limits: LimitsBody | None = Field(default=None, description="of requests that the user signs (JSON web tokens)")


class UserChange(Body):
    """What is left out stays as it is. `revoked` is what a removed user is; `active` brings one back."""

    name: Word | None = None
    role: Role | None = None
    status: Status | None = None
    limits: LimitsBody | None = None


class UserView(View):
    id: str
    org_id: str
    email: str
    name: str
    role: Role
    status: Status
    limits: ViewedLimits
    created_at: datetime

    @classmethod
    def of(cls, user: User) -> "UserView":
        return cls.model_validate(user)


class OperatorCreate(Body):
    name: Word
    role: Role = Field(default=Role.ADMIN, description="admin or read-only")


class OperatorChange(Body):
    """Suspend or take up again; revoking is final and has an address of its own."""

    status: Suspension


class OperatorView(View):
    id: str
    name: str
    prefix: str
    role: Role
    status: Status
    created_at: datetime

    @classmethod
    def of(cls, operator: Operator) -> "OperatorView":
        return cls.model_validate(operator)


class CreatedOperatorView(OperatorView):
    key: str = Field(description="the admin key itself: shown this once, stored nowhere")


class PlanBody(Body):
    """All of a plan; it is replaced as a whole."""

    name: Word
    features: list[Feature] = Field(default=[Feature.API_ACCESS])
    limits: LimitsBody | None = Field(default=None, description="of each org on this plan")
    env_limits: LimitsBody | None = Field(default=None, description="of each of its environments")
    key_limits: LimitsBody | None = Field(default=None, description="of each of its keys")
    max_queue_depth: int | None = Field(default=None, description="requests that may wait; null: the queue's own bound")
    priority: int = Field(default=1, description="higher is served first")
    weight: int = Field(default=1, description="share of a full fleet: twice the weight, twice the tokens")
    policy: QueuePolicy | None = Field(
        default=None, description="in which order its requests wait; null: `scheduling.policy`"
    )
    price_usd_per_token: Usd | None = Field(default=None, description="null: the price list decides, by model")
    price_usd_per_month: Usd = Decimal(0)
    included_tokens_per_month: int = 0
    support: Word | None = None
    sla_percent: Word | None = None

    def plan(self, plan_id: str) -> Plan:
        return Plan(
            id=plan_id,
            name=self.name,
            features=tuple(dict.fromkeys(self.features)),
            limits=limits_or_none(self.limits),
            env_limits=limits_or_none(self.env_limits),
            key_limits=limits_or_none(self.key_limits),
            max_queue_depth=self.max_queue_depth,
            priority=self.priority,
            weight=self.weight,
            policy=self.policy,
            price_per_token_pusd=None if self.price_usd_per_token is None else pusd_of(self.price_usd_per_token),
            price_per_month_pusd=pusd_of(self.price_usd_per_month),
            included_tokens_per_month=self.included_tokens_per_month,
            support=self.support,
            sla_percent=self.sla_percent,
        )


class PlanView(BaseModel):
    id: str
    name: str
    features: tuple[Feature, ...]
    limits: LimitsView
    env_limits: LimitsView
    key_limits: LimitsView
    max_queue_depth: int | None
    priority: int
    weight: int
    policy: QueuePolicy | None
    price_usd_per_token: str | None
    price_usd_per_month: str
    included_tokens_per_month: int
    support: str | None
    sla_percent: str | None
    source: PlanSource = Field(description="where it is defined; a nearer definition hides a farther one")

    @classmethod
    def of(cls, found: PlanInForce) -> "PlanView":
        plan = found.plan
        per_token = plan.price_per_token_pusd
        return cls(
            id=plan.id,
            name=plan.name,
            features=plan.features,
            limits=LimitsView.of(plan.limits),
            env_limits=LimitsView.of(plan.env_limits),
            key_limits=LimitsView.of(plan.key_limits),
            max_queue_depth=plan.max_queue_depth,
            priority=plan.priority,
            weight=plan.weight,
            policy=plan.policy,
            price_usd_per_token=None if per_token is None else exact_usd(per_token),
            price_usd_per_month=exact_usd(plan.price_per_month_pusd),
            included_tokens_per_month=plan.included_tokens_per_month,
            support=plan.support,
            sla_percent=plan.sla_percent,
            source=found.source,
        )


class AuditEntryView(BaseModel):
    seq: int
    at: datetime
    org_id: str | None
    actor_kind: str
    actor_id: str
    action: str
    entity_id: str
    before: dict[str, Any] | None = Field(description="of a change only what differs; secrets replaced")
    after: dict[str, Any] | None
    request_id: str | None
    hash: str = Field(description="over this entry and the hash of the one before")

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditEntryView":
        return cls(
            seq=entry.seq,
            at=entry.at,
            org_id=entry.org_id,
            actor_kind=entry.actor_kind,
            actor_id=entry.actor_id,
            action=entry.action,
            entity_id=entry.entity_id,
            before=None if entry.before is None else json.loads(entry.before),
            after=None if entry.after is None else json.loads(entry.after),
            request_id=entry.request_id,
            hash=entry.hash.hex(),
        )


class VerdictView(BaseModel):
    intact: bool
    entries: int = Field(description="how many were found as they were written, from the first")
    head: str = Field(description="hash of the last of them; kept elsewhere, it shows a log that was cut short")
    wrong_seq: int | None
    problem: str | None

    @classmethod
    def of(cls, verdict: Verdict) -> "VerdictView":
        return cls(
            intact=verdict.intact,
            entries=verdict.entries,
            head=verdict.head,
            wrong_seq=verdict.wrong_seq,
            problem=verdict.problem,
        )
