"""`/admin/nodes`: nodes register, report and leave; operators look at them and drain them.

The fields bear the names of the architecture document §21.1 (`model_list`, `vram_total`, …), and ours beside them.
Unknown fields are ignored, so that an agent newer than the control plane can still register. What a node itself
asks for as a key can be written here and never read. Who may call is decided where the router is mounted.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from crosslogic.api.models import Word
from crosslogic.fleet.heartbeats import Heartbeats
from crosslogic.fleet.lifecycle import HEARTBEAT_INTERVAL_S, Heartbeat
from crosslogic.fleet.model import BackendKind, Node, NodeLoad, NodeStatus, Symptom, Verdict
from crosslogic.fleet.registry import MAX_PAGE, Registration, Registry
from crosslogic.fleet.sql import NodeFilter
from crosslogic.kernel.ids import NodeId, OrgId

_MIB_PER = {"": 1024.0, "G": 1024.0, "GB": 1024.0, "GIB": 1024.0, "M": 1.0, "MB": 1.0, "MIB": 1.0}
_SIZE = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*")

Name = Annotated[str, Field(min_length=1, max_length=128)]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Rate = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _alias(*names: str) -> AliasChoices:
    return AliasChoices(*names)


def _in_mib(value: object) -> object:
    """The document's sizes of GPU memory: 48, "48", "48 GB", "49152 MB"; a bare number is in GB."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    match = _SIZE.fullmatch(str(value))
    unit = match.group(2).upper() if match else None
    if match is None or unit not in _MIB_PER:
        raise ValueError('write a size as 48 (GB), "48 GB" or "49152 MB"')
    return round(float(match.group(1)) * _MIB_PER[unit])


Size = Annotated[Count, BeforeValidator(_in_mib)]


class _NodeBody(BaseModel):
    """What registration and heartbeat both may say."""

    model_config = ConfigDict(extra="ignore")

    vram_free_mb: Count | None = None
    vram_free: Size | None = Field(default=None, description="The same as text or in GB.")
    throughput_tokens_per_sec: Rate | None = Field(
        default=None, validation_alias=_alias("throughput_tokens_per_sec", "throughput_tokens_per_s")
    )

    def free_mb(self) -> int | None:
        return self.vram_free if self.vram_free_mb is None else self.vram_free_mb


class RegisterBody(_NodeBody):
    """What a node says when it registers (§21.2)."""

    endpoint_url: Annotated[str, Field(min_length=1, max_length=2048)]
    model_list: list[ModelName] = Field(default=[], max_length=1000, validation_alias=_alias("model_list", "models"))
    node_id: Name | None = Field(default=None, validation_alias=_alias("node_id", "id"))
    status: NodeStatus = NodeStatus.ACTIVE
    backend: BackendKind = Field(default=BackendKind.OPENAI, validation_alias=_alias("backend", "engine"))
    region: Name = "local"
    cloud: Name = Field(default="local", validation_alias=_alias("cloud", "provider"))
    spot: bool = False
    gpu_type: Name | None = None
    gpu_count: Annotated[int, Field(ge=0, le=1024)] = 1
    vram_total_mb: Count | None = None
    vram_total: Size | None = Field(default=None, description="The same as text or in GB.")
    spot_price_usd_per_hour: Rate | None = Field(
        default=None, validation_alias=_alias("spot_price_usd_per_hour", "spot_price")
    )
    tailnet_ip: Name | None = None
    org_id: Name | None = None
    api_key: SecretStr | None = None
    deployment_id: Name | None = None

    def registration(self) -> Registration:
        return Registration(
            endpoint_url=self.endpoint_url,
            models=tuple(self.model_list),
            node_id=None if self.node_id is None else NodeId(self.node_id),
            status=self.status,
            backend=self.backend,
            region=self.region,
            cloud=self.cloud,
            spot=self.spot,
            gpu_type=self.gpu_type,
            gpu_count=self.gpu_count,
            vram_total_mb=self.vram_total if self.vram_total_mb is None else self.vram_total_mb,
            vram_free_mb=self.free_mb(),
            throughput_tokens_per_s=self.throughput_tokens_per_sec,
            spot_price_usd_per_hour=self.spot_price_usd_per_hour,
            tailnet_ip=self.tailnet_ip,
            org_id=None if self.org_id is None else OrgId(self.org_id),
            api_key=None if self.api_key is None else self.api_key.get_secret_value(),
            deployment_id=self.deployment_id,
        )


class HeartbeatBody(_NodeBody):
    """What a node says every five seconds (§22.1); an empty body says that it lives."""

    status: NodeStatus | None = None
    model_list: list[ModelName] | None = Field(
        default=None, max_length=1000, validation_alias=_alias("model_list", "models")
    )
    requests_running: Count = 0
    requests_waiting: Count = 0
    tokens_in_flight: Count | None = None
    kv_cache_used_ratio: Ratio | None = None
    tokens_per_second: Rate | None = None
    health_score: Ratio | None = None

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(
            load=NodeLoad(
                requests_running=self.requests_running,
                requests_waiting=self.requests_waiting,
                tokens_in_flight=self.tokens_in_flight,
                kv_cache_used_ratio=self.kv_cache_used_ratio,
                tokens_per_second=self.tokens_per_second,
            ),
            status=self.status,
            models=None if self.model_list is None else tuple(dict.fromkeys(self.model_list)),
            health_score=self.health_score,
            vram_free_mb=self.free_mb(),
            throughput_tokens_per_s=self.throughput_tokens_per_sec,
        )


class LoadView(BaseModel):
    requests_running: int
    requests_waiting: int
    tokens_in_flight: int | None
    kv_cache_used_ratio: float | None
    tokens_per_second: float | None


class HealthView(BaseModel):
    """What the node is judged to be, and why."""

    verdict: Verdict
    symptom: Symptom | None
    detail: str
    ejected: bool = Field(description="Gets no new requests as long as another node can take them.")


class NodeView(BaseModel):
    """A node as operators see it. Its own key is not among the fields."""

    node_id: str
    endpoint_url: str
    model_list: list[str]
    status: NodeStatus
    backend: BackendKind
    region: str
    cloud: str
    spot: bool
    gpu_type: str | None
    gpu_count: int
    vram_total_mb: int | None
    vram_free_mb: int | None
    throughput_tokens_per_sec: float | None
    spot_price_usd_per_hour: float | None
    tailnet_ip: str | None
    org_id: str | None
    deployment_id: str | None
    health_score: float
    health: HealthView
    static: bool
    load: LoadView
    last_heartbeat_at: datetime | None
    draining_since: datetime | None
    created_at: datetime


class NodePage(BaseModel):
    data: list[NodeView]
    next_cursor: str | None = Field(description="Give it as `cursor` to read on; null on the last page.")


class HeartbeatAnswer(BaseModel):
    """What the node is held to be: an agent that reads `draining` finishes its work and leaves."""

    node_id: str
    status: NodeStatus
    heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S


def view(node: Node) -> NodeView:
    fields: dict[str, Any] = {name: getattr(node, name, None) for name in NodeView.model_fields}
    load = {name: getattr(node.load, name) for name in LoadView.model_fields}
    return NodeView(
        **{
            **fields,
            "node_id": node.id,
            "model_list": list(node.models),
            "throughput_tokens_per_sec": node.throughput_tokens_per_s,
            "health_score": node.health_score * node.health.weight,
            "health": HealthView(**{name: getattr(node.health, name) for name in HealthView.model_fields}),
            "load": LoadView(**load),
        }
    )


def nodes_router(
    registry_of: Callable[..., Any],
    as_caller: Callable[..., Any] | None = None,
    heartbeats_of: Callable[..., Any] | None = None,
) -> APIRouter:
    """The routes over a registry. Errors leave as the product's own; `api/errors.py` gives them a status.

    All three are dependencies: `registry_of` gives the registry, `as_caller` the same with the caller's actions written
    down, `heartbeats_of` what writes the heartbeats of many nodes together.
    """
    router = APIRouter(prefix="/admin/nodes", tags=["nodes"])
    Reading = Annotated[Registry, Depends(registry_of)]  # noqa: N806 - types
    Acting = Annotated[Registry, Depends(as_caller or registry_of)]  # noqa: N806
    Beating = Annotated[Heartbeats | Registry, Depends(heartbeats_of or registry_of)]  # noqa: N806

    @router.post("/register", summary="Register a node, or say again that it is there")
    async def register(body: RegisterBody, acting: Acting) -> NodeView:
        return view(await acting.register(body.registration()))

    @router.post("/{node_id}/heartbeat", summary="Say that a node lives and how busy it is")
    async def heartbeat(node_id: str, beats: Beating, body: HeartbeatBody | None = None) -> HeartbeatAnswer:
        node = await beats.heartbeat(NodeId(node_id), (body or HeartbeatBody()).heartbeat())
        return HeartbeatAnswer(node_id=node.id, status=node.status)

    @router.post("/{node_id}/drain", summary="Give a node nothing new; what runs is finished")
    async def drain(node_id: str, acting: Acting) -> NodeView:
        return view(await acting.drain(NodeId(node_id)))

    @router.delete("/{node_id}", status_code=204, summary="Remove a node", response_class=Response)
    async def deregister(node_id: str, acting: Acting) -> None:
        await acting.deregister(NodeId(node_id))

    @router.get("", summary="List nodes")
    async def nodes(
        registry: Reading,
        status: NodeStatus | None = None,
        region: Word | None = None,
        model: Word | None = None,
        org_id: Word | None = None,
        cursor: Word | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    ) -> NodePage:
        wanted = NodeFilter(status=status, region=region, model=model, org_id=None if org_id is None else OrgId(org_id))
        found = await registry.nodes(wanted, after=cursor, limit=limit)
        return NodePage(data=[view(node) for node in found], next_cursor=found[-1].id if len(found) == limit else None)

    @router.get("/{node_id}", summary="One node")
    async def node(node_id: str, registry: Reading) -> NodeView:
        return view(await registry.node(NodeId(node_id)))

    return router
