"""The certificate authority of the nodes (architecture document §44.1, §46.1): ours, or one that is given.

Invariants: of a request only its public key is taken, never its names, and a request that asks for other names than
it gets is refused rather than corrected; a node's certificate is good for clients only, so that no node can pass for
control; the key is in no message, no log and no representation of an object.
"""

from datetime import datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crosslogic.fleet.identity import NodeIdentity, identity_of
from crosslogic.kernel.errors import ConfigurationError, Forbidden, InvalidRequest

CONTROL_NAME = "control.crosslogic.internal"  # what agents expect, at whatever address control listens
CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=90)
CLOCK_SKEW = timedelta(minutes=5)
MAX_CSR_BYTES = 16_384

_SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_CLIENT_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_SERVER_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


class Issued(msgspec.Struct, frozen=True):
    """A certificate that was just signed."""

    serial: str  # hex
    certificate_pem: bytes
    issued_at: datetime
    expires_at: datetime


class Authority:
    """Signs for nodes and for control."""

    def __init__(self, key: _SigningKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self.ca_pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.fingerprint = certificate.fingerprint(hashes.SHA256())

    def __repr__(self) -> str:
        return f"Authority({self.fingerprint.hex()[:16]})"

    def sign(self, csr_der: bytes, identity: NodeIdentity, now: datetime, lifetime: timedelta) -> Issued:
        """A node's certificate. Raises InvalidRequest for a request that cannot be signed, and Forbidden for one that
        asks for another identity."""
        request = _read_request(csr_der)
        asked = _names_in(request)
        if asked and asked != [identity.uri]:
            raise Forbidden("the request asks for another identity than it may have", code="foreign_identity")
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.node_id[:64])])
        expires_at = min(now + lifetime, self._certificate.not_valid_after_utc)
        certificate = self._issue(request.public_key(), subject, names, _CLIENT_ONLY, now, expires_at)
        return Issued(
            f"{certificate.serial_number:x}",
            certificate.public_bytes(serialization.Encoding.PEM),
            now,
            certificate.not_valid_after_utc,
        )

    def server_pem(self, now: datetime, name: str = CONTROL_NAME) -> bytes:
        """A new key and certificate for control, or whoever goes by `name`, one after the other, and the CA's."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        expires_at = min(now + SERVER_LIFETIME, self._certificate.not_valid_after_utc)
        certificate = self._issue(key.public_key(), subject, alternatives, _SERVER_ONLY, now, expires_at)
        return key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM) + self.ca_pem

    def private_pem(self) -> bytes:
        """The CA's key, to be written where only we read it."""
        return key_pem(self._key)

    def _issue(
        self,
        public_key: CertificatePublicKeyTypes,
        subject: x509.Name,
        names: x509.SubjectAlternativeName,
        purpose: x509.ExtendedKeyUsage,
        now: datetime,
        expires_at: datetime,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(expires_at)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(purpose, critical=False)
            .add_extension(names, critical=False)
            .add_extension(_identifier_of(self._key), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def create_authority(now: datetime) -> Authority:
    """A new CA of our own, for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CrossLogic node CA")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_signing_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(key, builder.sign(key, hashes.SHA256()))


def load_authority(certificate_pem: bytes, private_pem: bytes) -> Authority:
    """A CA that was made elsewhere. Raises ConfigurationError; no message repeats what it read."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_pem_private_key(private_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "the CA's certificate or key cannot be read; both must be PEM, without password"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigurationError("the CA's key must be ECDSA or RSA")
    if _public_pem(key.public_key()) != _public_pem(certificate.public_key()):
        raise ConfigurationError("the CA's key does not belong to its certificate")
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        may_sign = False
    if not may_sign:
        raise ConfigurationError("the certificate given as CA is none: its basic constraints do not say CA")
    return Authority(key, certificate)


def key_pem(key: _SigningKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def names_of(certificate: x509.Certificate) -> list[str]:
    """All alternative names of a certificate; what is no URI is shown so that it matches nothing."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [
        name.value if isinstance(name, x509.UniformResourceIdentifier) else f"other:{name!r}"
        for name in extension.value
    ]


def presented(certificate_der: bytes) -> tuple[str, NodeIdentity | None]:
    """Serial and identity in a certificate that a TLS handshake has verified already."""
    certificate = x509.load_der_x509_certificate(certificate_der)
    return f"{certificate.serial_number:x}", identity_of(names_of(certificate))


def _read_request(csr_der: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_der_x509_csr(csr_der[: MAX_CSR_BYTES + 1])
        genuine = len(csr_der) <= MAX_CSR_BYTES and request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise InvalidRequest("the certificate request cannot be read", param="csr") from None
    if not genuine:
        raise InvalidRequest("the certificate request is not signed with its own key", param="csr")
    strong = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    if not strong and not (isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192):
        raise InvalidRequest("the key must be ECDSA on P-256 or P-384, or RSA of at least 2048 bits", param="csr")
    return request


def _names_in(request: x509.CertificateSigningRequest) -> list[str]:
    try:
        extension = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    except ValueError:
        raise InvalidRequest("the certificate request cannot be read", param="csr") from None
    return [str(name.value) for name in extension.value]


def _identifier_of(key: _SigningKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _signing_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _public_pem(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
