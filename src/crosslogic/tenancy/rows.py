"""Between the values of `tenancy.model` and the columns of `store.tables`, in both directions."""

from typing import Any

import msgspec
from sqlalchemy import RowMapping

from crosslogic.cache.model import NO_CHOICE, CacheChoice
from crosslogic.kernel.ids import EnvId, KeyId, OperatorId, OrgId, UserId
from crosslogic.limits.model import NO_LIMITS, Limits
from crosslogic.tenancy.directory import KeyEntry
from crosslogic.tenancy.model import (
    UNSCOPED,
    ApiKey,
    AtCap,
    Environment,
    Operator,
    Org,
    Plan,
    Role,
    Scoping,
    Status,
    SuspendedFor,
    User,
)


def limits_document(limits: Limits) -> dict[str, Any]:
    """The fields that are set: a field that `Limits` gains later is simply not there in older rows."""
    fields = msgspec.structs.asdict(limits)
    return {name: value for name, value in fields.items() if value != getattr(NO_LIMITS, name)}


def scoping_document(scoping: Scoping) -> dict[str, Any]:
    return {name: list(value) for name, value in msgspec.structs.asdict(scoping).items() if value}


def cache_document(choice: CacheChoice) -> dict[str, Any]:
    """What is chosen; what is inherited is not there."""
    return {name: value for name, value in msgspec.structs.asdict(choice).items() if value is not None}


def plan_document(plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(plan)
    for name in ("limits", "env_limits", "key_limits"):
        document[name] = limits_document(getattr(plan, name))
    if plan.policy is None:  # a gateway of the version before does not know this field
        del document["policy"]
    return document


def org_columns(org: Org) -> dict[str, Any]:
    return {
        "id": org.id,
        "name": org.name,
        "status": org.status.value,
        "billing_plan": org.billing_plan,
        "allowed_models": list(org.allowed_models),
        "created_at": org.created_at,
        "limits": limits_document(org.limits),
        "env_limits": limits_document(org.env_limits),
        "key_limits": limits_document(org.key_limits),
        "region_preferences": list(org.region_preferences),
        "billing_enabled": org.billing_enabled,
        "at_cap": org.at_cap.value,
        "data_residency": org.data_residency,
        "cache": cache_document(org.cache),
        "suspended_for": None if org.suspended_for is None else org.suspended_for.value,
    }


def environment_columns(env: Environment) -> dict[str, Any]:
    return {
        "id": env.id,
        "org_id": env.org_id,
        "name": env.name,
        "status": env.status.value,
        "region": env.region,
        "allowed_models": list(env.allowed_models),
        "created_at": env.created_at,
        "limits": limits_document(env.limits),
        "key_limits": limits_document(env.key_limits),
        "at_cap": env.at_cap.value,
        "data_residency": env.data_residency,
        "cache": cache_document(env.cache),
    }


def user_columns(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "org_id": user.org_id,
        "email": user.email,
        "name": user.name,
        "role": user.role.value,
        "status": user.status.value,
        "created_at": user.created_at,
        "limits": limits_document(user.limits),
    }


def operator_columns(operator: Operator) -> dict[str, Any]:
    return {
        "id": operator.id,
        "name": operator.name,
        "key_hash": operator.key_hash,
        "prefix": operator.prefix,
        "role": operator.role.value,
        "status": operator.status.value,
        "created_at": operator.created_at,
    }


def key_columns(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "org_id": key.org_id,
        "env_id": key.env_id,
        "name": key.name,
        "key_hash": key.key_hash,
        "prefix": key.prefix,
        "role": key.role.value,
        "status": key.status.value,
        "region": key.region,
        "created_by": key.created_by,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "limits": limits_document(key.limits),
        "scoping": scoping_document(key.scoping),
        "replaced_by": key.replaced_by,
        "rotation_ref": key.rotation_ref,
    }


def to_scoping(document: dict[str, Any]) -> Scoping:
    return msgspec.convert(document, Scoping) if document else UNSCOPED


def to_limits(row: RowMapping, column: str = "limits") -> Limits:
    document = row[column]
    return msgspec.convert(document, Limits) if document else NO_LIMITS  # one object for all that have none


def to_cache(row: RowMapping) -> CacheChoice:
    document = row["cache"]
    return msgspec.convert(document, CacheChoice) if document else NO_CHOICE


def to_org(row: RowMapping) -> Org:
    return Org(
        id=OrgId(row["id"]),
        name=row["name"],
        status=Status(row["status"]),
        created_at=row["created_at"],
        billing_plan=row["billing_plan"],
        limits=to_limits(row),
        allowed_models=tuple(row["allowed_models"]),
        env_limits=to_limits(row, "env_limits"),
        key_limits=to_limits(row, "key_limits"),
        region_preferences=tuple(row["region_preferences"]),
        billing_enabled=row["billing_enabled"],
        at_cap=AtCap(row["at_cap"]),
        data_residency=row["data_residency"],
        cache=to_cache(row),
        suspended_for=None if row["suspended_for"] is None else SuspendedFor(row["suspended_for"]),
    )


def to_environment(row: RowMapping) -> Environment:
    return Environment(
        id=EnvId(row["id"]),
        org_id=OrgId(row["org_id"]),
        name=row["name"],
        created_at=row["created_at"],
        status=Status(row["status"]),
        region=row["region"],
        limits=to_limits(row),
        allowed_models=tuple(row["allowed_models"]),
        key_limits=to_limits(row, "key_limits"),
        at_cap=AtCap(row["at_cap"]),
        data_residency=row["data_residency"],
        cache=to_cache(row),
    )


def to_user(row: RowMapping) -> User:
    return User(
        id=UserId(row["id"]),
        org_id=OrgId(row["org_id"]),
        email=row["email"],
        name=row["name"],
        role=Role(row["role"]),
        created_at=row["created_at"],
        status=Status(row["status"]),
        limits=to_limits(row),
    )


def to_operator(row: RowMapping) -> Operator:
    return Operator(
        id=OperatorId(row["id"]),
        name=row["name"],
        key_hash=bytes(row["key_hash"]),
        prefix=row["prefix"],
        role=Role(row["role"]),
        status=Status(row["status"]),
        created_at=row["created_at"],
    )


def to_plan(row: RowMapping) -> Plan:
    return msgspec.convert(row["terms"], Plan)


def to_key(row: RowMapping) -> ApiKey:
    return ApiKey(
        id=KeyId(row["id"]),
        org_id=OrgId(row["org_id"]),
        env_id=EnvId(row["env_id"]),
        name=row["name"],
        key_hash=bytes(row["key_hash"]),
        prefix=row["prefix"],
        role=Role(row["role"]),
        status=Status(row["status"]),
        created_at=row["created_at"],
        created_by=None if row["created_by"] is None else UserId(row["created_by"]),
        region=row["region"],
        limits=to_limits(row),
        expires_at=row["expires_at"],
        last_used_at=row.get("last_used_at"),
        scoping=to_scoping(row["scoping"]),
        replaced_by=None if row["replaced_by"] is None else KeyId(row["replaced_by"]),
        rotation_ref=row["rotation_ref"],
    )


def to_entry(row: RowMapping) -> KeyEntry:
    expires_at = row["expires_at"]
    return KeyEntry(
        id=KeyId(row["id"]),
        key_hash=bytes(row["key_hash"]),
        env_id=EnvId(row["env_id"]),
        role=Role(row["role"]),
        status=Status(row["status"]),
        region=row["region"],
        limits=to_limits(row),
        expires_at_s=None if expires_at is None else expires_at.timestamp(),
        scoping=to_scoping(row["scoping"]),
        user_id=None if row["created_by"] is None else UserId(row["created_by"]),
    )
