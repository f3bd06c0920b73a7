"""Asking the cloud where we are, and whether it wants its machine back.

Invariant: nothing here waits longer than `timeout_s` for an address that does not answer, follows a redirect or goes
through a proxy: metadata services are on this machine's own link.
"""

import asyncio
from collections.abc import Mapping

import httpx

from crosslogic.agent import notices
from crosslogic.agent.model import MetadataAddresses, Place, SpotNotice

AWS_TOKEN_TTL_S = 21_600
AZURE_COMPUTE = "/metadata/instance/compute?api-version=2021-02-01&format=json"
AZURE_EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
_GOOGLE = {"metadata-flavor": "Google"}
_AZURE = {"metadata": "true"}
_MAX_BODY_BYTES = 256 * 1024


class Metadata:
    """The metadata service of whichever cloud this is; `async with` closes it."""

    def __init__(self, addresses: MetadataAddresses, timeout_s: float = 1.0) -> None:
        self._addresses = addresses
        self._http = httpx.AsyncClient(timeout=timeout_s, trust_env=False, follow_redirects=False)
        self._aws_token: str | None = None
        self._azure_name = ""

    async def place(self, cloud: str | None = None) -> Place:
        """Where we are; `cloud` says which one to ask, None asks all of them."""
        asked = {"aws": self._aws_place, "gcp": self._gcp_place, "azure": self._azure_place}
        chosen = [ask for name, ask in asked.items() if cloud in (None, name)]
        for found in await asyncio.gather(*(ask() for ask in chosen)):
            if found is not None:
                return found
        return Place(cloud or "local")

    async def notice(self, cloud: str) -> SpotNotice | None:
        """Whether the cloud takes this machine away; an answer that does not come is no notice."""
        if cloud == "aws":
            return notices.aws_notice(*await self._aws("/latest/meta-data/spot/instance-action"))
        if cloud == "gcp":
            path = "/computeMetadata/v1/instance/preempted"
            return notices.gcp_notice(*await self._get(self._addresses.gcp + path, _GOOGLE))
        if cloud == "azure":
            answer = await self._get(self._addresses.azure + AZURE_EVENTS, _AZURE)
            return notices.azure_notice(*answer, self._azure_name)
        return None

    async def rebalance_recommended(self, cloud: str) -> bool:
        """Whether the cloud recommends to leave this machine, which it may take away before long; only AWS says so."""
        if cloud != "aws":
            return False
        return notices.aws_rebalance(*await self._aws("/latest/meta-data/events/recommendations/rebalance"))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "Metadata":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _aws_place(self) -> Place | None:
        status, zone = await self._aws("/latest/meta-data/placement/availability-zone")
        if status != 200:
            return None
        kind = await self._aws("/latest/meta-data/instance-type")
        life = await self._aws("/latest/meta-data/instance-life-cycle")
        return notices.aws_place(_text(200, zone), _text(*kind), _text(*life))

    async def _gcp_place(self) -> Place | None:
        base = f"{self._addresses.gcp}/computeMetadata/v1/instance"
        zone = await self._get(f"{base}/zone", _GOOGLE)
        if zone[0] != 200:
            return None
        paths = ("machine-type", "scheduling/preemptible", "scheduling/provisioning-model")
        rest = [_text(*await self._get(f"{base}/{path}", _GOOGLE)) for path in paths]
        return notices.gcp_place(_text(*zone), *rest)

    async def _azure_place(self) -> Place | None:
        status, body = await self._get(self._addresses.azure + AZURE_COMPUTE, _AZURE)
        found = notices.azure_place(body) if status == 200 else None
        if found is None:
            return None
        place, self._azure_name = found
        return place

    async def _aws(self, path: str) -> tuple[int, bytes]:
        """IMDSv2: a session token first, and a new one when that has expired (401)."""
        for _ in range(2):
            if self._aws_token is None:
                headers = {"x-aws-ec2-metadata-token-ttl-seconds": str(AWS_TOKEN_TTL_S)}
                status, token = await self._ask("PUT", f"{self._addresses.aws}/latest/api/token", headers)
                if status != 200:
                    return 0, b""
                self._aws_token = token.decode("ascii", "replace")
            answer = await self._get(self._addresses.aws + path, {"x-aws-ec2-metadata-token": self._aws_token})
            if answer[0] != 401:
                return answer
            self._aws_token = None
        return 0, b""

    async def _get(self, url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        return await self._ask("GET", url, headers)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body; 0 where nothing answers."""
        try:
            answer = await self._http.request(method, url, headers=dict(headers))
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return 0, b""
        return answer.status_code, answer.content[:_MAX_BODY_BYTES]


def _text(status: int, body: bytes) -> str:
    return body.decode("utf-8", "replace").strip()[:256] if status == 200 else ""
