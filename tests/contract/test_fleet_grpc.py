"""The gRPC door, with real handshakes: who may come in, and what is written down of those who may not."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import msgspec
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet.agents import Agents
from crosslogic.fleet.authority import CONTROL_NAME, Authority, create_authority, key_pem
from crosslogic.fleet.grpc import SERVICE
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.fleet.model import NodeStatus
from crosslogic.fleet.registry import Registry
from crosslogic.fleet.trust import Trust
from crosslogic.fleet.wire import node_agent_pb2 as wire
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.settings import SettingsSource, load_settings
from crosslogic.store.tables import audit_log, orgs
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import key_hasher
from crosslogic.wiring.agents import AgentEntrance
from crosslogic.wiring.process import Background
from tests.contract.test_fleet_trust import asked, csr

ACME, GLOBEX = OrgId("org_acme"), OrgId("org_globex")
REPLIES = {
    "RegisterNode": wire.NodeState,
    "SendHeartbeat": wire.NodeState,
    "SendMetrics": wire.Ack,
    "NotifySpotEviction": wire.NodeState,
    "Shutdown": wire.NodeState,
    "RenewCertificate": wire.RenewReply,
}
HELLO = wire.RegisterRequest(endpoint_url="http://10.0.0.1:8000", models=["m"], status=wire.ACTIVE, region="mars")


class Papers:
    """A key with its certificate, and the CA that its holder believes in."""

    def __init__(self, trust: Trust | None, org_id: OrgId | None = ACME, node_id: str = "gpu-7") -> None:
        self.trust, self.org_id, self.node_id = trust, org_id, node_id
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = b""

    async def join(self) -> "Papers":
        assert self.trust is not None
        made = await self.trust.create_token(AuditTrail(), org_id=self.org_id, region="in-mumbai")
        joined = await self.trust.join(asked(made.text, csr(key=self.key), self.node_id), "test")
        self.certificate, self.ca = joined.certificate_pem, joined.ca_pem
        return self

    def signed_by(self, authority: Authority, lifetime: timedelta, ca: bytes) -> "Papers":
        """A certificate that control never recorded."""
        identity = NodeIdentity(NodeId(self.node_id), self.org_id)
        now = SystemClock().now() - timedelta(days=1)
        self.certificate = authority.sign(csr(key=self.key), identity, now, lifetime).certificate_pem
        self.ca = ca
        return self


class Caller:
    def __init__(self, port: int, papers: Papers) -> None:
        credentials = grpc.ssl_channel_credentials(papers.ca, key_pem(papers.key), papers.certificate or None)
        if not papers.certificate:
            credentials = grpc.ssl_channel_credentials(papers.ca)
        options = [("grpc.ssl_target_name_override", CONTROL_NAME), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)

    async def __call__(self, method: str, request: Any) -> Any:
        call = self.channel.unary_unary(f"/{SERVICE}/{method}", request.SerializeToString, REPLIES[method].FromString)
        return await call(request, timeout=10)

    async def refused(self, method: str, request: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self(method, request)
        return raised.value.code()

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()


class Door:
    """Control's entrance as it really is, with what a test needs to look behind it."""

    def __init__(self, engine: AsyncEngine, entrance: AgentEntrance, registry: Registry) -> None:
        self.engine, self.registry = engine, registry
        assert entrance.services.trust is not None
        self.trust: Trust = entrance.services.trust
        self.agents: Agents = entrance.services.agents
        self.heartbeats = entrance.heartbeats
        self.port = entrance.services.port()
        assert entrance._server is not None
        self.port_behind = entrance._server._door._target_port

    def caller(self, papers: Papers) -> Caller:
        return Caller(self.port, papers)

    async def refusals(self, some: bool = True) -> list[str]:
        """What was written down, once there is anything: a caller may learn sooner that it is refused."""
        async with asyncio.timeout(10):
            while not (found := await self._refusals()) and some:
                await asyncio.sleep(0.02)
        return found

    async def _refusals(self) -> list[str]:
        query = select(audit_log.c.after).where(audit_log.c.action == "node.refuse").order_by(audit_log.c.seq)
        async with self.engine.connect() as conn:
            return [msgspec.json.decode(text)["reason"] for text in (await conn.execute(query)).scalars()]


@pytest_asyncio.fixture
async def door(engine: AsyncEngine, tmp_path: Any) -> AsyncIterator[Door]:
    flags = {"data_dir": str(tmp_path), "control": {"agent_port": 0, "agent_listen": "127.0.0.1"}}
    settings = load_settings(SettingsSource(flags=flags))
    async with engine.begin() as conn:
        for org_id in (ACME, GLOBEX):
            row = {"id": org_id, "name": org_id, "status": "active", "billing_plan": "free", "allowed_models": []}
            await conn.execute(insert(orgs).values(**row, limits={}, created_at=SystemClock().now()))
    registry = Registry(engine, SystemClock())
    background = Background(asyncio.Event())
    entrance = AgentEntrance(settings, engine, registry, SystemClock(), key_hasher())
    await entrance.start(background)
    yield Door(engine, entrance, registry)
    await background.close()
    await entrance.close()


async def test_a_node_with_a_certificate_registers_reports_drains_and_leaves(door: Door) -> None:
    async with door.caller(await Papers(door.trust).join()) as call:
        state = await call("RegisterNode", HELLO)
        assert (state.node_id, state.status, state.heartbeat_interval_s) == ("gpu-7", wire.ACTIVE, 5.0)
        node = await door.registry.node(NodeId("gpu-7"))
        assert (node.org_id, node.region, node.models) == (ACME, "in-mumbai", ("m",))  # as the token says
        beat = wire.HeartbeatRequest(status=wire.ACTIVE, load=wire.Load(requests_running=3), vram_free_mb=9)
        assert (await call("SendHeartbeat", beat)).status == wire.ACTIVE
        await door.heartbeats.flush()
        node = await door.registry.node(NodeId("gpu-7"))
        assert (node.load.requests_running, node.vram_free_mb) == (3, 9)
        gpu = wire.Gpu(name="H100", temperature_c=61.0)
        samples = {"vllm:num_requests_running": 3.0}
        pieces = {"oom_events": 2, "vram_fragmentation_ratio": 0.85}
        await call("SendMetrics", wire.MetricsRequest(gpus=[gpu], engine=samples, **pieces))
        said = (await door.agents.report(NodeId("gpu-7")))["report"]
        assert said["metrics"]["gpus"][0]["temperature_c"] == 61.0
        assert {name: said["metrics"][name] for name in pieces} == pieces
        notice = wire.SpotEvictionRequest(cloud="aws", action="terminate", at="2026-01-01T00:02:00Z")
        assert (await call("NotifySpotEviction", notice)).status == wire.DRAINING
        assert (await door.registry.node(NodeId("gpu-7"))).status is NodeStatus.DRAINING
        assert (await call("SendHeartbeat", beat)).status == wire.DRAINING
        await call("Shutdown", wire.ShutdownRequest(reason="done", finished=True))
        assert await call.refused("SendHeartbeat", beat) is grpc.StatusCode.NOT_FOUND
    assert await door.refusals(some=False) == []


async def test_logs_are_kept_without_secrets(door: Door) -> None:
    async with door.caller(await Papers(door.trust).join()) as call:
        stream = call.channel.stream_unary(
            f"/{SERVICE}/StreamLogs", lambda batch: batch.SerializeToString(), wire.Ack.FromString
        )
        line = wire.LogLine(at="2026-01-01T00:00:00Z", source="engine", text="key clsk_live_abcdefgh1234")
        await stream(iter([wire.LogBatch(lines=[line]), wire.LogBatch(lines=[line] * 2, dropped=4)]))
    kept = door.agents.last_logs(NodeId("gpu-7"), 100)
    assert len(kept) == 4
    assert "abcdefgh" not in repr(kept)
    assert "4 lines were dropped" in kept[-1].text


async def test_another_ca_is_refused_and_written_down(door: Door) -> None:
    other = create_authority(SystemClock().now() - timedelta(days=2))
    papers = Papers(None).signed_by(other, timedelta(days=7), door.trust.authority.ca_pem)
    async with door.caller(papers) as call:
        assert await call.refused("RegisterNode", HELLO) is grpc.StatusCode.UNAVAILABLE
    assert await door.refusals() == ["handshake_wrong_ca"]


async def test_an_expired_certificate_is_refused_and_written_down(door: Door) -> None:
    papers = Papers(None).signed_by(door.trust.authority, timedelta(hours=1), door.trust.authority.ca_pem)
    async with door.caller(papers) as call:
        assert await call.refused("RegisterNode", HELLO) is grpc.StatusCode.UNAVAILABLE
    assert await door.refusals() == ["handshake_expired"]


async def test_no_certificate_and_no_tls_are_refused(door: Door) -> None:
    papers = Papers(None)
    papers.ca = door.trust.authority.ca_pem
    async with door.caller(papers) as call:
        assert await call.refused("RegisterNode", HELLO) is grpc.StatusCode.UNAVAILABLE
    assert await door.refusals() == ["handshake_no_certificate"]
    _reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert await asyncio.wait_for(_reader.read(), 15) is not None  # closed
    writer.close()


async def test_who_goes_round_the_door_is_nobody(door: Door) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port_behind}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary(
                f"/{SERVICE}/RegisterNode", lambda message: message.SerializeToString(), wire.NodeState.FromString
            )(HELLO, timeout=10)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_certificate_with_anothers_org_is_refused_and_written_down(door: Door) -> None:
    """Signed with the CA's own key, as a given CA may do elsewhere: what control did not record counts for nothing."""
    forged = Papers(None, GLOBEX).signed_by(door.trust.authority, timedelta(days=7), door.trust.authority.ca_pem)
    async with door.caller(forged) as call:
        assert await call.refused("RegisterNode", HELLO) is grpc.StatusCode.UNAUTHENTICATED
    async with door.caller(await Papers(door.trust, ACME).join()) as call:
        wanted = csr(NodeIdentity(NodeId("gpu-7"), GLOBEX).uri)
        assert await call.refused("RenewCertificate", wire.RenewRequest(csr_der=wanted)) is (
            grpc.StatusCode.PERMISSION_DENIED
        )
    assert await door.refusals() == ["unknown_certificate", "foreign_identity"]


async def test_a_revoked_certificate_is_refused_in_the_middle_of_a_connection(door: Door) -> None:
    async with door.caller(await Papers(door.trust).join()) as call:
        await call("RegisterNode", HELLO)
        await door.trust.revoke(AuditTrail(), "gpu-7")
        assert await call.refused("SendHeartbeat", wire.HeartbeatRequest()) is grpc.StatusCode.UNAUTHENTICATED
    assert await door.refusals() == ["revoked"]


async def test_a_certificate_is_renewed_over_the_connection_and_both_work(door: Door) -> None:
    papers = await Papers(door.trust).join()
    async with door.caller(papers) as call:
        await call("RegisterNode", HELLO)
        renewed = Papers(None)
        reply = await call("RenewCertificate", wire.RenewRequest(csr_der=csr(key=renewed.key)))
        renewed.certificate, renewed.ca = reply.certificate_pem, reply.ca_pem
        async with door.caller(renewed) as again:
            assert (await again("SendHeartbeat", wire.HeartbeatRequest())).node_id == "gpu-7"
        assert (await call("SendHeartbeat", wire.HeartbeatRequest())).node_id == "gpu-7"


async def test_a_node_s_certificate_cannot_pass_for_control(door: Door) -> None:
    papers = await Papers(door.trust).join()
    leaf = x509.load_pem_x509_certificate(papers.certificate)
    context = ssl.create_default_context(cadata=door.trust.authority.ca_pem.decode())
    assert context.verify_mode is ssl.CERT_REQUIRED
    policy = verification.PolicyBuilder().store(
        verification.Store([x509.load_pem_x509_certificate(door.trust.authority.ca_pem)])
    )
    with pytest.raises(verification.VerificationError):
        policy.build_server_verifier(x509.DNSName(CONTROL_NAME)).verify(leaf, [])


async def test_nodes_do_not_take_over_each_others_address(door: Door) -> None:
    async with door.caller(await Papers(door.trust, ACME, "gpu-1").join()) as one:
        await one("RegisterNode", HELLO)
    async with door.caller(await Papers(door.trust, GLOBEX, "gpu-2").join()) as two:
        assert await two.refused("RegisterNode", HELLO) is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    "wrong",
    [
        wire.RegisterRequest(endpoint_url="http://169.254.169.254/", models=["m"]),
        wire.RegisterRequest(endpoint_url="http://10.0.0.1:1", models=["m"], backend="abacus"),
        wire.RegisterRequest(endpoint_url="http://10.0.0.1:1", models=["m\0"]),
        wire.RegisterRequest(endpoint_url="http://10.0.0.1:1", models=["m"], cloud="x" * 1000),
        wire.RegisterRequest(
            endpoint_url="http://10.0.0.1:1", models=["m"], capacity=wire.Capacity(decode_tokens_per_s=float("nan"))
        ),
    ],
)
async def test_what_agents_say_is_checked(door: Door, wrong: Any) -> None:
    async with door.caller(await Papers(door.trust).join()) as call:
        assert await call.refused("RegisterNode", wrong) is grpc.StatusCode.INVALID_ARGUMENT
