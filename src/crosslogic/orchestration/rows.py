"""Between the values of the model registry and its rows, in both directions."""

from typing import Any

import msgspec
from sqlalchemy import RowMapping

from crosslogic.orchestration.model import Deployment, RegisteredModel, Rollout

_OF_ROW = ("id", "name", "version", "created_at", "updated_at")


def model_columns(model: RegisteredModel) -> dict[str, Any]:
    fields = msgspec.structs.asdict(model)
    columns = {name: fields.pop(name) for name in _OF_ROW}
    return {**columns, "card": msgspec.to_builtins(fields)}


def to_model(row: RowMapping) -> RegisteredModel:
    return msgspec.convert({**row["card"], **{name: row[name] for name in _OF_ROW}}, RegisteredModel)


def deployment_columns(deployment: Deployment) -> dict[str, Any]:
    columns = msgspec.structs.asdict(deployment)
    return {**columns, "status": deployment.status.value, "config": msgspec.to_builtins(deployment.config)}


def to_deployment(row: RowMapping) -> Deployment:
    return msgspec.convert({name: row[name] for name in Deployment.__struct_fields__}, Deployment)


def rollout_columns(rollout: Rollout) -> dict[str, Any]:
    columns = msgspec.structs.asdict(rollout)
    return {
        **columns,
        "kind": rollout.kind.value,
        "status": rollout.status.value,
        "rules": msgspec.to_builtins(rollout.rules),
    }


def to_rollout(row: RowMapping) -> Rollout:
    return msgspec.convert({name: row[name] for name in Rollout.__struct_fields__}, Rollout)
