"""A gateway's hub and an agent's tunnel in this process, joined over loopback with real certificates."""

import asyncio
import ssl
import tempfile
from datetime import timedelta

from crosslogic.agent.papers import Papers, new_key
from crosslogic.agent.tunnel import Tunnel
from crosslogic.fleet.authority import Authority, create_authority, presented
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import Unauthenticated
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.net.client import Origin
from crosslogic.tunnel.entrance import Entrance
from crosslogic.tunnel.hub import Hub
from crosslogic.tunnel.wire import GATEWAY_NAME, Hello

NODE = NodeIdentity(NodeId("gpu-7"), OrgId("org_acme"))


class TunnelRig:
    """Use as an async context manager. `revoked` holds serials that count no more."""

    def __init__(self, *, silence_s: float = 12.0, ping_interval_s: float = 4.0) -> None:
        self.authority = create_authority(SystemClock().now())
        self.revoked: set[str] = set()
        self.serials: dict[str, str] = {}
        self.hellos: list[Hello] = []
        self._silence_s, self._ping_interval_s = silence_s, ping_interval_s
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "TunnelRig":
        clock = SystemClock()
        self.hub = Hub(
            self.server_context(self.authority),
            self._verify,
            clock,
            ping_interval_s=self._ping_interval_s,
            silence_s=self._silence_s,
        )
        self._entrance = Entrance(self._accept)
        self.port = self._entrance.listen("127.0.0.1", 0)
        self._running.append(asyncio.create_task(self.hub.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._entrance.close()
        await self.hub.close()

    def _accept(self, accepted: object, hello: Hello, address: str) -> None:
        self.hellos.append(hello)
        self.hub.accept(accepted, hello, address)  # type: ignore[arg-type]

    async def _verify(self, certificate: bytes, _address: str) -> NodeIdentity:
        serial, identity = presented(certificate)
        if serial in self.revoked or identity is None:
            raise Unauthenticated("this certificate is refused")
        return identity

    def server_context(self, authority: Authority, name: str = GATEWAY_NAME) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority.ca_pem.decode())
        with tempfile.NamedTemporaryFile() as file:
            file.write(authority.server_pem(SystemClock().now(), name))
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def papers(
        self,
        identity: NodeIdentity = NODE,
        authority: Authority | None = None,
        lifetime: timedelta = timedelta(hours=1),
    ) -> Papers:
        """With a certificate of `authority`; the CA believed in is the rig's, unless that is another."""
        key, authority = new_key(), authority or self.authority
        issued = authority.sign(key.csr_der, identity, SystemClock().now(), lifetime)
        self.serials[identity.node_id] = issued.serial
        return Papers(
            node_id=identity.node_id,
            region="",
            key_pem=key.key_pem,
            certificate_pem=issued.certificate_pem.decode(),
            ca_pem=authority.ca_pem.decode(),
            control_host="",
            control_port=1,
        )

    def agent(self, engine_port: int, papers: Papers | None = None) -> Tunnel:
        papers = papers or self.papers()
        tunnel = Tunnel(
            lambda: papers,
            [("127.0.0.1", self.port)],
            f"http://127.0.0.1:{engine_port}",
            lambda: None,
            silence_s=self._silence_s,
        )
        self.task = asyncio.create_task(tunnel.run())
        self._running.append(self.task)
        return tunnel

    def origin(self, identity: NodeIdentity = NODE, connect_timeout_s: float = 5.0) -> Origin:
        url = f"tunnel://{identity.node_id}"
        return Origin(url, connect_timeout_s=connect_timeout_s, dial=self.hub.dial_of(identity))


async def eventually(condition: object, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)
