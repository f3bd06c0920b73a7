"""Builds the gateway's side of tunnels: its certificate, and who says whose an agent's certificate is."""

import asyncio
import ssl
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet.identity import NodeIdentity
from crosslogic.fleet.verification import Verification
from crosslogic.kernel.clock import Clock, SystemClock
from crosslogic.kernel.errors import ConfigurationError, Unavailable
from crosslogic.settings.model import Settings
from crosslogic.store.engine import DATABASE_ERRORS
from crosslogic.tenancy.audit import Actor, ActorKind
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tunnel.hub import Hub
from crosslogic.tunnel.wire import GATEWAY_NAME
from crosslogic.wiring import translate
from crosslogic.wiring.authority import NEW_SERVER_CERTIFICATE_S, has_authority, read_or_create_authority
from crosslogic.wiring.process import Background


class Tunnels:
    """Those of one worker. `verification` follows the change feed."""

    def __init__(self, settings: Settings, engine: AsyncEngine, *, worker: int = 0, workers: int = 1) -> None:
        """Raises ConfigurationError when there is no certificate to show."""
        clock = SystemClock()
        hash_key = translate.key_hasher_of(settings)
        self._settings = settings
        self._clock = clock
        self.verification = Verification(
            engine, clock, lambda node_id: AuditTrail(Actor(ActorKind.NODE, node_id), hash_key, clock)
        )
        pem = gateway_pem(settings, clock)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a CA that is given need not be a root
        self._context.load_verify_locations(cadata=_authorities_in(pem))
        self._show(pem)
        self.hub = Hub(self._context, self._whose, clock, worker=worker, workers=workers)

    def start(self, background: Background) -> None:
        background.start("tunnels", self.hub.run())
        background.start("certificate for tunnels", self._keep_certificate())

    async def _whose(self, certificate: bytes, address: str) -> NodeIdentity:
        try:
            return (await self.verification.verify(certificate, address)).identity
        except DATABASE_ERRORS as error:
            raise Unavailable(f"the database does not answer ({type(error).__name__})") from None

    async def _keep_certificate(self) -> None:
        """Handshakes from now on use a new one; tunnels that stand go on."""
        while True:
            await asyncio.sleep(NEW_SERVER_CERTIFICATE_S)
            self._show(gateway_pem(self._settings, self._clock))

    def _show(self, pem: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:  # readable by its owner only
            file.write(pem)
            file.flush()
            try:
                self._context.load_cert_chain(file.name)
            except (ssl.SSLError, OSError):
                raise ConfigurationError("server.tunnel_certificate_file must hold a key and its certificate") from None


def gateway_pem(settings: Settings, clock: Clock) -> bytes:
    """Key, certificate and CA of this gateway, as PEM. Raises ConfigurationError."""
    path = settings.server.tunnel_certificate_file
    if path is not None:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    directory = settings.data_dir / "ca"
    if not has_authority(settings.control, directory):
        raise ConfigurationError(
            "tunnels need a certificate of control's CA, which is not on this machine; run `crosslogic nodes "
            "tunnel-certificate` beside control, and set server.tunnel_certificate_file"
        )
    return read_or_create_authority(settings.control, directory, clock).server_pem(clock.now(), GATEWAY_NAME)


def _authorities_in(pem: bytes) -> str:
    """The CA's certificate, without the gateway's own. Raises ConfigurationError."""
    try:
        found = x509.load_pem_x509_certificates(pem)
        ours = [one for one in found if _is_authority(one)]
    except ValueError:
        ours = []
    if not ours:
        raise ConfigurationError("server.tunnel_certificate_file must hold the CA's certificate too")
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in ours)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
