"""Who may bring a tunnel, what it is good for, and when it ends: real handshakes over loopback."""

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

import pytest

from crosslogic.agent.tunnel import gateway_address
from crosslogic.fleet.authority import CONTROL_NAME, create_authority
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.net.client import ConnectFailed, Failure
from crosslogic.net.exchange import Exchange
from crosslogic.net.server import HttpServer
from crosslogic.tunnel.entrance import Entrance, Passing, Receiving
from crosslogic.tunnel.wire import GATEWAY_NAME, WELCOME_BYTES, Hello, Kind
from tests.contract.test_net_http import Collector, ask, echo, request
from tests.tunnel_rig import NODE, TunnelRig, eventually


def endless(exchange: Exchange) -> None:
    exchange.start(200, b"")
    exchange.write(b"on and on")


async def engine(handler: object = echo) -> tuple[HttpServer, int]:
    server = HttpServer(handler)  # type: ignore[arg-type]
    return server, await server.listen("127.0.0.1", 0)


async def raw_line(rig: TunnelRig, tmp_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A line with a good certificate, whose holder does as the test says."""
    papers = rig.papers()
    (tmp_path / "node.pem").write_text(papers.key_pem + papers.certificate_pem)
    context = ssl.create_default_context(cadata=papers.ca_pem)
    context.load_cert_chain(tmp_path / "node.pem")
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(Hello(Kind.LINE, 0).encode())
    await writer.start_tls(context, server_hostname=GATEWAY_NAME)
    await reader.readexactly(WELCOME_BYTES)
    return reader, writer


async def test_a_certificate_of_another_ca_brings_no_tunnel() -> None:
    async with TunnelRig() as rig:
        stranger = create_authority(SystemClock().now())
        papers = rig.papers(authority=stranger)
        rig.agent(1, type(papers)(**{**_fields(papers), "ca_pem": rig.authority.ca_pem.decode()}))
        await eventually(lambda: len(rig.hellos) >= 2)  # it comes again
        assert not rig.hub.connected(NODE)
        with pytest.raises(ConnectFailed):
            await rig.origin(connect_timeout_s=0.2).connect()


async def test_a_revoked_certificate_brings_no_tunnel() -> None:
    async with TunnelRig() as rig:
        papers = rig.papers()
        rig.revoked.add(rig.serials[NODE.node_id])
        tunnel = rig.agent(1, papers)
        await eventually(lambda: len(rig.hellos) >= 2)
        assert not rig.hub.connected(NODE)
        assert not tunnel.connected


async def test_revoking_cuts_what_runs_and_lets_nothing_new_in() -> None:
    async with TunnelRig() as rig:
        server, port = await engine(endless)
        tunnel = rig.agent(port)
        origin = rig.origin()
        sink = Collector()
        (await origin.connect()).send(sink, request("/"))
        await asyncio.wait_for(sink.got_data.wait(), 5)

        rig.revoked.add(rig.serials[NODE.node_id])

        await asyncio.wait_for(sink.ended.wait(), 5)
        assert sink.failure is Failure.CUT
        await eventually(lambda: not tunnel.connected)
        assert not rig.hub.connected(NODE)
        await server.close(0)


async def test_an_expired_certificate_lets_running_answers_end_and_carries_nothing_new() -> None:
    going = asyncio.Event()

    def handler(exchange: Exchange) -> None:
        async def answer() -> None:
            exchange.start(200, b"")
            exchange.write(b"one ")
            await going.wait()
            exchange.end(b"two")

        handler.task = asyncio.create_task(answer())  # type: ignore[attr-defined]

    async with TunnelRig() as rig:
        server, port = await engine(handler)
        rig.agent(port, rig.papers(lifetime=timedelta(seconds=3)))
        origin = rig.origin()
        sink = Collector()
        (await origin.connect()).send(sink, request("/"))
        await asyncio.wait_for(sink.got_data.wait(), 5)
        await eventually(lambda: not rig.hub.connected(NODE))
        await asyncio.sleep(0.2)
        going.set()
        await asyncio.wait_for(sink.ended.wait(), 5)
        assert (sink.body, sink.failure) == (b"one two", None)
        assert not origin._idle
        await server.close(0)


async def test_a_tunnel_serves_the_node_and_the_owner_of_its_certificate_only() -> None:
    async with TunnelRig() as rig:
        server, port = await engine()
        rig.agent(port)
        assert (await ask(rig.origin(), request("/"))).status == 200
        for other in (
            NodeIdentity(NODE.node_id, OrgId("org_globex")),
            NodeIdentity(NODE.node_id),  # shared by all
            NodeIdentity(NodeId("gpu-8"), NODE.org_id),
        ):
            with pytest.raises(ConnectFailed):
                await rig.origin(other, connect_timeout_s=0.1).connect()
        await server.close(0)


async def test_control_or_another_node_cannot_pass_for_a_gateway() -> None:
    async with TunnelRig() as rig:
        rig.hub._context = rig.server_context(rig.authority, CONTROL_NAME)
        tunnel = rig.agent(1)
        await eventually(lambda: len(rig.hellos) >= 2)
        assert not tunnel.connected


async def test_a_line_that_falls_silent_is_closed_with_all_it_carries(tmp_path: Path) -> None:
    async with TunnelRig(silence_s=0.6, ping_interval_s=0.1) as rig:
        reader, writer = await raw_line(rig, tmp_path)
        assert rig.hub.connected(NODE)
        began_s = asyncio.get_running_loop().time()
        await asyncio.wait_for(reader.read(-1), 5)  # pings, which it does not answer, and the end
        assert asyncio.get_running_loop().time() - began_s >= 0.5
        await eventually(lambda: not rig.hub.connected(NODE))
        writer.close()


async def test_an_agent_that_answers_pings_keeps_its_line() -> None:
    async with TunnelRig(silence_s=0.6, ping_interval_s=0.1) as rig:
        tunnel = rig.agent(1)
        await eventually(lambda: tunnel.connected)
        lines = [hello for hello in rig.hellos if hello.kind is Kind.LINE]
        await asyncio.sleep(1.5)
        assert rig.hub.connected(NODE)
        assert [hello for hello in rig.hellos if hello.kind is Kind.LINE] == lines  # the same one


async def test_an_agent_comes_back_after_its_line_was_cut() -> None:
    async with TunnelRig() as rig:
        server, port = await engine()
        tunnel = rig.agent(port)
        await eventually(lambda: tunnel.connected)
        for peer in rig.hub._peers.values():
            peer.abort()
        assert (await ask(rig.origin(), request("/"))).status == 200
        await server.close(0)


async def test_an_agent_that_ends_in_mid_answer_is_a_cut() -> None:
    async with TunnelRig() as rig:
        server, port = await engine(endless)
        rig.agent(port)
        sink = Collector()
        (await rig.origin().connect()).send(sink, request("/"))
        await asyncio.wait_for(sink.got_data.wait(), 5)
        rig.task.cancel()
        await asyncio.wait_for(sink.ended.wait(), 5)
        assert sink.failure is Failure.CUT
        await server.close(0)


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", b"CLT1\x09\x00\x00\x00", b"\x16\x03\x01\x02\x00\x01\x00\x01"]
)
async def test_who_is_no_agent_is_hung_up_on(junk: bytes) -> None:
    async with TunnelRig() as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(junk)
        assert await asyncio.wait_for(_to_the_end(reader), 5) == b""
        assert rig.hellos == []
        writer.close()


async def test_sockets_reach_the_worker_that_the_agent_asks_for() -> None:
    passing = Passing(2)
    heard: list[tuple[int, Hello, str]] = []
    receiving = []
    for worker in range(2):

        def accept(sock: object, hello: Hello, address: str, worker: int = worker) -> None:
            heard.append((worker, hello, address))
            sock.close()  # type: ignore[attr-defined]

        receiving.append(Receiving(passing.channel(worker), accept))
    entrance = Entrance(passing.accept)
    port = entrance.listen("127.0.0.1", 0)
    said = [Hello(Kind.LINE, 0), Hello(Kind.PIPE, 1), Hello(Kind.LINE, 5)]  # there is no sixth worker
    for hello in said:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(hello.encode())
        assert await asyncio.wait_for(_to_the_end(reader), 5) == b""
        writer.close()
    assert heard == [(0, said[0], "127.0.0.1"), (1, said[1], "127.0.0.1"), (1, said[2], "127.0.0.1")]
    await entrance.close()
    passing.close()
    for end in receiving:
        end.close()


def test_addresses_of_gateways_are_read_or_refused() -> None:
    assert gateway_address("gw.example:8443") == ("gw.example", 8443)
    assert gateway_address("[fd00::1]:8443") == ("fd00::1", 8443)
    for wrong in ("gw.example", ":8443", "http://gw:1", "gw:99999", "gw:1/x"):
        with pytest.raises(ConfigurationError):
            gateway_address(wrong)


async def _to_the_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(-1)
    except ConnectionResetError:
        return b""


def _fields(papers: object) -> dict[str, object]:
    return {name: getattr(papers, name) for name in papers.__struct_fields__}  # type: ignore[attr-defined]
