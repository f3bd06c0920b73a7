"""What the agent learns from each cloud, asked of servers that are as strict as the clouds' own."""

from collections.abc import Iterator

import pytest

from crosslogic.agent.metadata import Metadata
from crosslogic.agent.model import MetadataAddresses, Place
from tests.clouds_metadata import MetadataServer
from tests.ports import free_port

PLACES = {
    "aws": Place("aws", "ap-south-1", "ap-south-1b", "g6e.xlarge", True),
    "gcp": Place("gcp", "asia-south1", "asia-south1-b", "g2-standard-4", True),
    "azure": Place("azure", "centralindia", "centralindia-2", "NC24ads", True),
}
ACTIONS = {"aws": "terminate", "gcp": "preempt", "azure": "preempt"}


@pytest.fixture(params=["aws", "gcp", "azure"])
def cloud(request: pytest.FixtureRequest) -> Iterator[MetadataServer]:
    with MetadataServer(request.param) as server:
        yield server


def addresses_of(cloud: MetadataServer) -> MetadataAddresses:
    nowhere = f"http://127.0.0.1:{free_port()}"
    return MetadataAddresses(**({"aws": nowhere, "gcp": nowhere, "azure": nowhere} | {cloud.cloud: cloud.url}))


async def test_the_cloud_is_found_out(cloud: MetadataServer) -> None:
    async with Metadata(addresses_of(cloud)) as metadata:
        assert await metadata.place() == PLACES[cloud.cloud]
    cloud.spot = False
    async with Metadata(addresses_of(cloud)) as metadata:
        assert not (await metadata.place(cloud.cloud)).spot


async def test_a_notice_is_seen_when_there_is_one(cloud: MetadataServer) -> None:
    async with Metadata(addresses_of(cloud)) as metadata:
        await metadata.place()
        assert await metadata.notice(cloud.cloud) is None
        cloud.take_away()
        notice = await metadata.notice(cloud.cloud)
        assert notice is not None
        assert (notice.cloud, notice.action) == (cloud.cloud, ACTIONS[cloud.cloud])
        assert (
            notice.at == {"aws": "2026-11-20T20:02:00Z", "gcp": "", "azure": "2026-09-19T18:29:47+00:00"}[cloud.cloud]
        )
        cloud.expire_tokens()  # of AWS: another one is fetched
        assert await metadata.notice(cloud.cloud) == notice


async def test_no_answer_is_no_notice_and_no_cloud(cloud: MetadataServer) -> None:
    with MetadataServer("gcp") as other:
        everywhere = MetadataAddresses(other.url + "/no", other.url + "/no", other.url + "/no")
        async with Metadata(everywhere) as metadata:
            assert await metadata.place() == Place("local")
            assert await metadata.notice(cloud.cloud) is None


async def test_a_recommendation_to_leave_is_no_notice(cloud: MetadataServer) -> None:
    async with Metadata(addresses_of(cloud)) as metadata:
        await metadata.place()
        assert not await metadata.rebalance_recommended(cloud.cloud)
        cloud.rebalance = True
        assert await metadata.rebalance_recommended(cloud.cloud) == (cloud.cloud == "aws")
        assert await metadata.notice(cloud.cloud) is None
