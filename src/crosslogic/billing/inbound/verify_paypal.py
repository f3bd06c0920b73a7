"""Whether a webhook is PayPal's: an RSA signature over its ids, time and the checksum of its raw body.

The certificate is named by the webhook itself, so it counts only when it comes from PayPal's own hosts over TLS, below
the one path where they lie; redirects are not followed. It is kept for an hour.
"""

import zlib
from base64 import b64decode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from crosslogic.billing.inbound.model import InboundEvent
from crosslogic.kernel.errors import InvalidRequest, Unavailable

HOSTS = frozenset({"api.paypal.com", "api-m.paypal.com", "api.sandbox.paypal.com", "api-m.sandbox.paypal.com"})
CERT_PATH = "/v1/notifications/certs/"
STALE = timedelta(minutes=5)  # PayPal signs each transmission anew
FUTURE = timedelta(minutes=1)
MOST_BYTES = 1_000_000
_KEPT = timedelta(hours=1)
_MOST_KEPT = 8
_MOST_CERT_BYTES = 100_000
Fetch = Callable[[str], Awaitable[bytes]]


def allowed(cert_url: str, hosts: frozenset[str] = HOSTS) -> bool:
    """Whether a certificate may be got from there."""
    try:
        parts = urlsplit(cert_url)
        port = parts.port
    except ValueError:
        return False
    name = parts.path.removeprefix(CERT_PATH)
    return (
        parts.scheme == "https"
        and parts.hostname in hosts
        and port in (None, 443)
        and parts.username is None
        and parts.password is None
        and not parts.query
        and not parts.fragment
        and parts.path.startswith(CERT_PATH)
        and name.replace("-", "").isalnum()
        and cert_url.isascii()
    )


async def fetch_certificate(url: str) -> bytes:
    """Raises Unavailable."""
    try:
        async with httpx.AsyncClient(timeout=10.0, follow_redirects=False) as http:
            answer = await http.get(url)
    except httpx.HTTPError as error:
        raise Unavailable(f"PayPal's certificate cannot be had ({type(error).__name__})") from None
    if answer.status_code != 200 or len(answer.content) > _MOST_CERT_BYTES:
        raise Unavailable("PayPal's certificate cannot be had")
    return answer.content


class PayPalVerifier:
    provider = "paypal"

    def __init__(
        self, webhook_id: str, fetch: Fetch = fetch_certificate, is_allowed: Callable[[str], bool] = allowed
    ) -> None:
        self._webhook_id = webhook_id
        self._fetch = fetch
        self._is_allowed = is_allowed
        self._kept: dict[str, tuple[rsa.RSAPublicKey, datetime]] = {}

    async def verified(self, body: bytes, headers: dict[str, str], now: datetime) -> InboundEvent:
        """Raises InvalidRequest; Unavailable when the certificate cannot be had: PayPal sends it again."""
        if headers.get("paypal-auth-algo") != "SHA256withRSA" or len(body) > MOST_BYTES:
            raise _refused()
        sent = headers.get("paypal-transmission-time", "")
        try:
            sent_at = datetime.fromisoformat(sent.replace("Z", "+00:00"))
            signature = b64decode(headers.get("paypal-transmission-sig", ""), validate=True)
        except ValueError:
            raise _refused() from None
        if sent_at.tzinfo is None or not -FUTURE <= now - sent_at.astimezone(UTC) <= STALE:
            raise _refused()
        key = await self._key(headers.get("paypal-cert-url", ""), now)
        transmission = headers.get("paypal-transmission-id", "")
        message = f"{transmission}|{sent}|{self._webhook_id}|{zlib.crc32(body)}".encode()
        try:
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            content = msgspec.json.decode(body, type=dict[str, object])
            event_id, kind = content["id"], content["event_type"]
        except (InvalidSignature, msgspec.DecodeError, KeyError):
            raise _refused() from None
        if not (isinstance(event_id, str) and isinstance(kind, str) and 0 < len(event_id) <= 200):
            raise _refused()
        return InboundEvent(self.provider, event_id, kind[:200], body.decode())

    async def _key(self, cert_url: str, now: datetime) -> rsa.RSAPublicKey:
        if not self._is_allowed(cert_url):
            raise _refused()
        kept = self._kept.get(cert_url)
        if kept is not None and timedelta(0) <= now - kept[1] < _KEPT:
            return kept[0]
        try:
            certificate = x509.load_pem_x509_certificate(await self._fetch(cert_url))
        except ValueError:
            raise _refused() from None
        key = certificate.public_key()
        valid = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
        if not isinstance(key, rsa.RSAPublicKey) or not valid:
            raise _refused()
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[cert_url] = (key, now)
        return key


def _refused() -> InvalidRequest:
    return InvalidRequest("this webhook is not signed by PayPal, or not now")
