"""The one Redis connection of a process, for limits and queue alike."""

from contextlib import AsyncExitStack

from crosslogic.gateway.operations import Check
from crosslogic.net.redis import RedisConnection
from crosslogic.settings.model import Settings


async def redis_connection(
    settings: Settings, stack: AsyncExitStack, checks: dict[str, Check]
) -> RedisConnection | None:
    """None where no Redis is configured. `stack` gets its end, `checks` what `/ready` must ask."""
    url = settings.redis.address()
    if url is None:
        return None
    # A worker that is started again while Redis is away serves all the same: it decides alone meanwhile.
    connection = await RedisConnection.connect(url, required=False)
    stack.push_async_callback(connection.close)

    async def answers() -> None:
        await connection.execute("PING")

    checks["redis"] = answers
    return connection
