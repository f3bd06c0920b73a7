"""`/admin/node-tokens`, `/admin/node-certificates` and what operators ask of agents; `/nodes/join` for machines.

`/nodes/join` asks for no key: a request is signed with a join token, and without that it is nobody's. The token
itself is not in it (`fleet/join_token.py`).
"""

import base64
import binascii
import contextlib
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, StringConstraints

from crosslogic.api.auth import OperatorTenancy, OperatorTrail, Services, nodes_as_operator
from crosslogic.api.licences import GROWS
from crosslogic.api.models import Body, Limit, Page, View, Word, page_of
from crosslogic.api.nodes import NodeView, view
from crosslogic.api.services import AgentServices, ApiServices
from crosslogic.fleet.agents import LOG_LINES_KEPT
from crosslogic.fleet.registry import Registry
from crosslogic.fleet.trust import LONGEST_TOKEN_TTL, TOKEN_TTL, JoinRequest, Trust
from crosslogic.fleet.trust_sql import CertificateRecord, TokenRecord
from crosslogic.kernel.errors import InvalidRequest, NotFound
from crosslogic.kernel.ids import NodeId

router = APIRouter(prefix="/admin", tags=["agents"])
public_router = APIRouter(prefix="/nodes", tags=["agents"])

OperatorNodes = Annotated[Registry, Depends(nodes_as_operator)]
Binary = Annotated[str, StringConstraints(min_length=1, max_length=32_768)]


class TokenCreate(Body):
    org: Word | None = Field(
        default=None, description="Name or id; without it the node is the platform's, for all orgs."
    )
    region: Word = "local"
    ttl_s: float = Field(default=TOKEN_TTL.total_seconds(), gt=0, le=LONGEST_TOKEN_TTL.total_seconds())


class TokenView(View):
    id: str
    org_id: str | None
    region: str
    status: str = Field(description="usable, used, expired or revoked")
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    used_by: str | None

    @classmethod
    def of(cls, record: TokenRecord, now: datetime) -> "TokenView":
        fields = {name: getattr(record, name) for name in cls.model_fields if name != "status"}
        return cls(**fields, status=record.status(now))


class CreatedTokenView(TokenView):
    token: str = Field(description="Shown this once.")


class CertificateView(View):
    serial: str
    node_id: str
    org_id: str | None
    region: str
    status: str = Field(description="valid, expired or revoked")
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None

    @classmethod
    def of(cls, record: CertificateRecord, now: datetime) -> "CertificateView":
        fields = {name: getattr(record, name) for name in cls.model_fields if name != "status"}
        return cls(**fields, status=record.status(now))


class RevokedView(View):
    node_id: str
    serials: list[str]


class JoinBody(BaseModel):
    """Binary fields are base64. Unknown fields are ignored, so that newer agents can join."""

    public_key: Binary = Field(description="of the join token")
    signature: Binary = Field(description="over certificate request and node id, with the join token")
    csr: Binary = Field(description="DER")
    node_id: Annotated[str, StringConstraints(max_length=128)] = ""

    def request(self) -> JoinRequest:
        return JoinRequest(_binary(self.public_key), _binary(self.signature), _binary(self.csr), self.node_id)


class JoinedView(View):
    node_id: str
    org_id: str | None
    region: str
    certificate: str
    ca: str
    agent_port: int = Field(description="where gRPC is served, with this certificate")
    agent_host: str | None = Field(description="null: the host that was joined")


class SpotBody(Body):
    cloud: Word = "unknown"
    action: Word = "terminate"
    at: Word | None = None


class UpgradeBody(Body):
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][0-9A-Za-z.+!-]{0,63}$")]


class ReportView(View):
    node_id: str
    report: dict[str, Any]
    wanted_version: str | None
    updated_at: datetime


class LogLineView(View):
    at: str
    source: str
    text: str


class LogView(View):
    data: list[LogLineView]


@router.post("/node-tokens", status_code=201, dependencies=[GROWS])
async def create_token(
    body: TokenCreate, services: Services, tenancy: OperatorTenancy, trail: OperatorTrail
) -> CreatedTokenView:
    """A machine that has it becomes a node, once."""
    trust = _trust(services)
    org_id = None if body.org is None else (await tenancy.org(body.org)).id
    made = await trust.create_token(trail, org_id=org_id, region=body.region, ttl=timedelta(seconds=body.ttl_s))
    return CreatedTokenView(**TokenView.of(made.record, trust.now()).model_dump(), token=made.text)


@router.get("/node-tokens")
async def list_tokens(
    services: Services,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[TokenView]:
    trust = _trust(services)
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await trust.tokens(org_id=org_id, after=cursor, limit=limit)
    return page_of([TokenView.of(record, trust.now()) for record in found], [record.id for record in found], limit)


@router.delete("/node-tokens/{token_id}")
async def revoke_token(token_id: Word, services: Services, trail: OperatorTrail) -> TokenView:
    """Harmless to repeat; what the token made already stays."""
    trust = _trust(services)
    return TokenView.of(await trust.revoke_token(trail, token_id), trust.now())


@router.get("/node-certificates")
async def list_certificates(
    services: Services,
    tenancy: OperatorTenancy,
    node: Word | None = None,
    org: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[CertificateView]:
    trust = _trust(services)
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await trust.certificates(node_id=node, org_id=org_id, after=cursor, limit=limit)
    views = [CertificateView.of(record, trust.now()) for record in found]
    return page_of(views, [record.serial for record in found], limit)


@router.post("/nodes/{node_id}/revoke")
async def revoke_node(node_id: Word, services: Services, trail: OperatorTrail, nodes: OperatorNodes) -> RevokedView:
    """Refuse the node's certificates from now on, and forget the node. Harmless to repeat."""
    revoked = await _trust(services).revoke(trail, node_id)
    with contextlib.suppress(NotFound):
        await nodes.deregister(NodeId(node_id))
    return RevokedView(node_id=node_id, serials=[record.serial for record in revoked])


@router.post("/nodes/{node_id}/spot-warning")
async def spot_warning(
    node_id: Word, services: Services, trail: OperatorTrail, body: SpotBody | None = None
) -> NodeView:
    """The cloud takes the machine away: nothing new from now on (architecture document, section 23.1)."""
    said = body or SpotBody()
    agents = _agents(services).agents
    node = await services.nodes.node(NodeId(node_id))
    state = await agents.spot_eviction(
        node.id, trail, cloud=said.cloud, action=said.action, at=said.at or "", org_id=node.org_id
    )
    return view(state.node)


@router.post("/nodes/{node_id}/upgrade", status_code=202)
async def upgrade(node_id: Word, body: UpgradeBody, services: Services, trail: OperatorTrail) -> ReportView:
    """Ask the node's agent to become another version of the package."""
    agents = _agents(services).agents
    await agents.want_version(trail, NodeId(node_id), body.version)
    return ReportView(**await agents.report(NodeId(node_id)))


@router.get("/nodes/{node_id}/report")
async def report(node_id: Word, services: Services) -> ReportView:
    """What the node's agent said last: hardware, capacity, versions, metrics, spot notice."""
    return ReportView(**await _agents(services).agents.report(NodeId(node_id)))


@router.get("/nodes/{node_id}/logs")
async def logs(
    node_id: Word, services: Services, limit: Annotated[int, Query(ge=1, le=LOG_LINES_KEPT)] = 100
) -> LogView:
    """The last lines of agent and engine, oldest first, as far as they reached the process that is asked."""
    agents = _agents(services).agents
    await services.nodes.node(NodeId(node_id))
    return LogView(data=[LogLineView.model_validate(line) for line in agents.last_logs(NodeId(node_id), limit)])


@public_router.post("/join")
async def join(body: JoinBody, request: Request, services: Services) -> JoinedView:
    """A machine becomes a node, with a join token, and gets its first certificate."""
    trust = _trust(services)
    offered = _agents(services)
    joined = await trust.join(body.request(), request.client.host if request.client else "unknown")
    return JoinedView(
        node_id=joined.record.node_id,
        org_id=joined.record.org_id,
        region=joined.record.region,
        certificate=joined.certificate_pem.decode(),
        ca=joined.ca_pem.decode(),
        agent_port=offered.port(),
        agent_host=offered.host,
    )


def _agents(services: ApiServices) -> AgentServices:
    if services.agents is None:
        raise NotFound("this process serves no agents")
    return services.agents


def _trust(services: ApiServices) -> Trust:
    trust = _agents(services).trust
    if trust is None:
        raise NotFound("agents are not let in here; set control.agent_port")
    return trust


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("binary fields are base64") from None
