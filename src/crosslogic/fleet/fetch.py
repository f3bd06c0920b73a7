"""GET requests to nodes, as the monitor needs them: short, bounded, never following a redirect.

A node's address is somebody's input, so these requests are made as harmless as can be: a redirect could lead to
an address that was never checked, and an endless body could fill the memory.
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

import httpx
import msgspec

MAX_BODY_BYTES = 4 * 1024 * 1024


class Answer(msgspec.Struct, frozen=True):
    """What came back. Header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Fetch(Protocol):
    async def __call__(self, url: str, *, api_key: str | None, timeout_s: float) -> Answer | None:
        """GET `url`; None when nothing, or nothing usable, comes back within `timeout_s`."""
        ...


class HttpFetch:
    """`Fetch` over a pool of connections; `async with` closes it."""

    def __init__(self, *, max_connections: int = 64) -> None:
        # trust_env off: a proxy of the environment must not see what is meant for a node.
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=max_connections, keepalive_expiry=30.0),
        )

    async def __call__(self, url: str, *, api_key: str | None, timeout_s: float) -> Answer | None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            # The client's own timeouts are for each read: a body that drips would never end.
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream("GET", url, headers=headers, timeout=timeout_s) as response,
            ):
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_BODY_BYTES:
                        return None
                return Answer(response.status_code, bytes(body), dict(response.headers))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError):
            return None

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> "HttpFetch":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
