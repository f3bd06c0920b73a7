"""Leases in etcd 3.4 or newer, through the JSON gateway that every etcd serves (`/v3/…`), so that no client library
is needed. The key lives as long as the etcd lease it is attached to; its create revision is the fence.
"""

from base64 import b64decode, b64encode
from math import ceil
from typing import Any

import httpx
import msgspec

from crosslogic.kernel.errors import Unavailable

REQUEST_S = 2.0


class EtcdLeases:
    """`ports.LeaseStore`. `endpoints` are tried in turn, beginning with the one that answered last.

    etcd counts whole seconds: a time to live is rounded up. Raises Unavailable when no endpoint answers.
    """

    def __init__(
        self,
        endpoints: tuple[str, ...],
        *,
        prefix: str = "/crosslogic/leases/",
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._endpoints = list(endpoints)
        self._prefix = prefix
        self._client = httpx.AsyncClient(timeout=REQUEST_S)
        self._kept: dict[tuple[str, str], tuple[str, int]] = {}  # (name, holder) → (etcd lease, fence)

    async def acquire(self, name: str, holder: str, ttl_s: float) -> int | None:
        kept = self._kept.get((name, holder))
        if kept is not None:
            if await self._keep_alive(kept[0]):
                return kept[1]
            del self._kept[name, holder]
        lease = str((await self._post("lease/grant", {"TTL": ceil(ttl_s)}))["ID"])
        fence = await self._put_if_free(name, holder, lease)
        if fence is None:
            await self._post("lease/revoke", {"ID": lease})
            return None
        self._kept[name, holder] = (lease, fence)
        return fence

    async def release(self, name: str, holder: str) -> None:
        kept = self._kept.pop((name, holder), None)
        if kept is not None:
            await self._post("lease/revoke", {"ID": kept[0]})  # takes the key with it

    async def holder(self, name: str) -> str | None:
        found = await self._post("kv/range", {"key": self._key(name)})
        values = found.get("kvs", ())
        return b64decode(values[0]["value"]).decode() if values else None

    async def close(self) -> None:
        await self._client.aclose()

    async def _put_if_free(self, name: str, holder: str, lease: str) -> int | None:
        key = self._key(name)
        transaction = {
            "compare": [{"key": key, "target": "CREATE", "create_revision": "0", "result": "EQUAL"}],
            "success": [{"request_put": {"key": key, "value": b64encode(holder.encode()).decode(), "lease": lease}}],
        }
        done = await self._post("kv/txn", transaction)
        return int(done["header"]["revision"]) if done.get("succeeded") else None

    async def _keep_alive(self, lease: str) -> bool:
        # Answers one line of a stream; a lease that has expired comes back without a time to live.
        return int((await self._post("lease/keepalive", {"ID": lease}))["result"].get("TTL", 0)) > 0

    def _key(self, name: str) -> str:
        return b64encode(f"{self._prefix}{name}".encode()).decode()

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        failure = "there is no endpoint"
        for _ in range(len(self._endpoints)):
            try:
                reply = await self._client.post(f"{self._endpoints[0]}/v3/{path}", json=body)
                reply.raise_for_status()
                return msgspec.json.decode(reply.content, type=dict[str, Any])
            except (httpx.HTTPError, msgspec.DecodeError) as error:
                failure = type(error).__name__
                self._endpoints.append(self._endpoints.pop(0))
        raise Unavailable(f"etcd does not answer ({failure}); see coordination.etcd_endpoints")
