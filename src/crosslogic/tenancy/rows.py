"""Between the values of `tenancy.model` and the columns of `store.tables`, in both directions."""

from typing import Any

import msgspec
from sqlalchemy import RowMapping

from crosslogic.kernel.ids import EnvId, KeyId, OrgId, UserId
from crosslogic.limits.model import NO_LIMITS, Limits
from crosslogic.tenancy.directory import KeyEntry
from crosslogic.tenancy.model import ApiKey, Environment, Org, Role, Status


def limits_document(limits: Limits) -> dict[str, Any]:
    """The fields that are set: a field that `Limits` gains later is simply not there in older rows."""
    fields = msgspec.structs.asdict(limits)
    return {name: value for name, value in fields.items() if value != getattr(NO_LIMITS, name)}


def org_columns(org: Org) -> dict[str, Any]:
    return {
        "id": org.id,
        "name": org.name,
        "status": org.status.value,
        "billing_plan": org.billing_plan,
        "allowed_models": list(org.allowed_models),
        "created_at": org.created_at,
        "limits": limits_document(org.limits),
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
    }


def to_limits(row: RowMapping) -> Limits:
    document = row["limits"]
    return msgspec.convert(document, Limits) if document else NO_LIMITS  # one object for all that have none


def to_org(row: RowMapping) -> Org:
    return Org(
        id=OrgId(row["id"]),
        name=row["name"],
        status=Status(row["status"]),
        created_at=row["created_at"],
        billing_plan=row["billing_plan"],
        limits=to_limits(row),
        allowed_models=tuple(row["allowed_models"]),
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
    )


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
    )
