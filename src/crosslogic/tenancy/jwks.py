"""The public keys of a token issuer (RFC 7517), fetched with bounds and kept.

Invariants: the issuer is asked at most once in `min_refetch_s`, whatever callers present; all who wait share one
fetch. Only RSA keys of 2,048 bits and more and P-256 keys are taken: never a symmetric one, which would make the
published document a secret to sign with.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import ConfigurationError

MAX_BYTES = 256 * 1024
MAX_KEYS = 64
MIN_RSA_BITS = 2_048
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

PublicKey = RSAKey | ECKey
Fetch = Callable[[], Awaitable[bytes]]

_log = logging.getLogger(__name__)


class IssuerKeys:
    """`version` changes whenever a key that was there is gone: what was verified with it has to be verified again."""

    def __init__(
        self,
        fetch: Fetch,
        clock: Clock,
        *,
        max_age_s: float = 300.0,
        min_refetch_s: float = 10.0,
        max_stale_s: float = 86_400.0,
    ) -> None:
        self.version = 0
        self._fetch = fetch
        self._clock = clock
        self._max_age_s = max_age_s
        self._min_refetch_s = min_refetch_s
        self._max_stale_s = max_stale_s
        self._keys: dict[str, list[tuple[str | None, PublicKey]]] = {}
        self._fetched_s: float | None = None
        self._tried_s: float | None = None
        self._running: asyncio.Task[None] | None = None

    def find(self, algorithm: str, key_id: str | None) -> PublicKey | None:
        """The key for RS256 or ES256; without `key_id` only where there is no choice. Never waits."""
        if self._fetched_s is not None and self._clock.monotonic_s() - self._fetched_s > self._max_stale_s:
            return None
        keys = self._keys.get(algorithm, [])
        if key_id is None:
            return keys[0][1] if len(keys) == 1 else None
        return next((key for name, key in keys if name == key_id), None)

    async def refresh(self) -> None:
        """Ask the issuer, unless that was done a moment ago. Never raises: what was known stays."""
        now_s = self._clock.monotonic_s()
        if self._running is None:
            if self._tried_s is not None and now_s - self._tried_s < self._min_refetch_s:
                return
            self._tried_s = now_s
            self._running = asyncio.create_task(self._refetch())
        await asyncio.shield(self._running)  # one caller that leaves does not end the fetch of the others

    async def run(self) -> None:
        """Keep the keys fresh until cancelled, so that no request ever waits for known ones."""
        while True:
            await self.refresh()
            fresh = self._fetched_s is not None and self._fetched_s == self._tried_s
            await asyncio.sleep(self._max_age_s if fresh else self._min_refetch_s)

    async def _refetch(self) -> None:
        try:
            keys = read_keys(await self._fetch())
        except Exception as error:  # whatever the issuer sends, the keys that we have stay and requests go on
            _log.warning("the token issuer's keys cannot be read (%s)", type(error).__name__)
            return
        finally:
            self._running = None
        names = {(algorithm, name) for algorithm, of in self._keys.items() for name, _ in of}
        if names - {(algorithm, name) for algorithm, of in keys.items() for name, _ in of}:
            self.version += 1
        self._keys = keys
        self._fetched_s = self._tried_s


def read_keys(document: bytes) -> dict[str, list[tuple[str | None, PublicKey]]]:
    """The usable keys of a JWK set, by algorithm. Unusable ones are passed over. Raises ValueError."""
    if len(document) > MAX_BYTES:
        raise ValueError("the key set is too long")
    try:
        listed = json.loads(document)["keys"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("this is no key set") from error
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError("this is no key set, or too long")
    found: dict[str, list[tuple[str | None, PublicKey]]] = {}
    for described in listed:
        usable = _read_key(described)
        if usable is not None:
            algorithm, key = usable
            name = described.get("kid")
            found.setdefault(algorithm, []).append((name if isinstance(name, str) else None, key))
    return found


def _read_key(described: object) -> tuple[str, PublicKey] | None:
    if not isinstance(described, dict) or described.get("use", "sig") != "sig":
        return None
    kind = described.get("kty")
    try:
        if kind == "RSA" and described.get("alg", "RS256") == "RS256":
            public = RSAKey.import_key({name: described[name] for name in ("kty", "n", "e")})
            return ("RS256", public) if public.public_key.key_size >= MIN_RSA_BITS else None
        if kind == "EC" and described.get("alg", "ES256") == "ES256" and described.get("crv") == "P-256":
            return "ES256", ECKey.import_key({name: described[name] for name in ("kty", "crv", "x", "y")})
    except (JoseError, KeyError, TypeError, ValueError):
        return None
    return None


class HttpFetch:
    """GET of one address: bounded in time and size, without redirects, proxies or plain HTTP over a network."""

    def __init__(self, url: str, *, timeout_s: float = 3.0) -> None:
        """Raises ConfigurationError."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise ConfigurationError("auth.jwt.jwks_url must begin with https://")
        self._url = url
        self._timeout_s = timeout_s

    async def __call__(self) -> bytes:
        """Raises httpx.HTTPError, TimeoutError, and ValueError for a body that is too long."""
        async with (
            asyncio.timeout(self._timeout_s),
            httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=self._timeout_s) as client,
            client.stream("GET", self._url) as response,
        ):
            response.raise_for_status()
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    raise ValueError("the key set is too long")
            return bytes(body)
