"""Leases as `coordination.k8s.io/v1` objects, by the rules of Kubernetes' own leader election.

A Lease object is only a record; whoever wants it waits until it has seen it unchanged for its whole duration on its
own clock, so that the clocks of the pods do not matter, and writes it with the version it has read, so that of two
writers one fails.
"""

from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Unavailable

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
IN_CLUSTER_URL = "https://kubernetes.default.svc"
REQUEST_S = 2.0
_CONFLICT = 409
_MISSING = 404


class _Record(msgspec.Struct, rename="camel", omit_defaults=True):
    """`spec` of a Lease."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class KubernetesLeases:
    """`ports.LeaseStore` in one namespace. The token file is read anew for each call: Kubernetes rotates it.

    A first look at a lease of somebody else never finds it expired, so taking over a dead holder's lease lasts up to
    its time to live after the first look. Raises Unavailable when the API server refuses or does not answer.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        namespace: str,
        url: str = IN_CLUSTER_URL,
        token_file: Path | None = SERVICE_ACCOUNT / "token",
    ) -> None:
        self._now_s, self._now = clock.monotonic_s, clock.now
        self._url = f"{url}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._token_file = token_file
        self._client = httpx.AsyncClient(timeout=REQUEST_S, verify=_trust())
        self._seen: dict[str, tuple[str, float]] = {}  # name → (version, when it was first seen here)

    async def acquire(self, name: str, holder: str, ttl_s: float) -> int | None:
        found = await self._get(name)
        if found is None:
            return await self._create(name, holder, ttl_s)
        record = msgspec.convert(found.get("spec") or {}, _Record)
        if record.holder_identity not in (None, "", holder) and not self._expired(name, found, record):
            return None
        if record.holder_identity != holder:
            record.lease_transitions += 1
            record.acquire_time = self._stamp()
        record.holder_identity, record.renew_time = holder, self._stamp()
        record.lease_duration_seconds = ceil(ttl_s)
        return await self._write("PUT", f"{self._url}/{name}", {**found, "spec": msgspec.to_builtins(record)})

    async def release(self, name: str, holder: str) -> None:
        found = await self._get(name)
        if found is None or (found.get("spec") or {}).get("holderIdentity") != holder:
            return
        spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        await self._write("PUT", f"{self._url}/{name}", {**found, "spec": spec})

    async def holder(self, name: str) -> str | None:
        found = await self._get(name)
        if found is None:
            return None
        record = msgspec.convert(found.get("spec") or {}, _Record)
        return None if self._expired(name, found, record) else record.holder_identity or None

    async def close(self) -> None:
        await self._client.aclose()

    def _expired(self, name: str, found: dict[str, Any], record: _Record) -> bool:
        version, now_s = found["metadata"]["resourceVersion"], self._now_s()
        seen_version, since_s = self._seen.get(name, ("", now_s))
        if seen_version != version:
            self._seen[name] = (version, now_s)
            return False
        return now_s - since_s > (record.lease_duration_seconds or 0)

    async def _create(self, name: str, holder: str, ttl_s: float) -> int | None:
        now = self._stamp()
        record = _Record(holder, ceil(ttl_s), now, now, 1)
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name},
            "spec": msgspec.to_builtins(record),
        }
        return await self._write("POST", self._url, body)

    async def _write(self, method: str, url: str, body: dict[str, Any]) -> int | None:
        """The fence, or None when somebody else was quicker."""
        reply = await self._call(method, url, body)
        if reply.status_code == _CONFLICT:
            return None
        return int(_checked(reply)["spec"]["leaseTransitions"])

    async def _get(self, name: str) -> dict[str, Any] | None:
        reply = await self._call("GET", f"{self._url}/{name}", None)
        return None if reply.status_code == _MISSING else _checked(reply)

    async def _call(self, method: str, url: str, body: dict[str, Any] | None) -> httpx.Response:
        headers = {}
        if self._token_file is not None:
            headers["authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        try:
            return await self._client.request(method, url, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"the Kubernetes API server does not answer ({type(error).__name__})") from error

    def _stamp(self) -> str:
        """RFC 3339 with microseconds: `MicroTime` in Kubernetes' words."""
        now: datetime = self._now().astimezone(UTC)
        return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _checked(reply: httpx.Response) -> dict[str, Any]:
    if reply.status_code >= 400:
        raise Unavailable(
            f"the Kubernetes API server answers {reply.status_code}; "
            "the service account needs get, create and update on leases.coordination.k8s.io"
        )
    return msgspec.json.decode(reply.content, type=dict[str, Any])


def _trust() -> str | bool:
    authority = SERVICE_ACCOUNT / "ca.crt"
    return str(authority) if authority.exists() else True
