"""Chooses where answers are kept that are given again: Redis for all workers, else this process's memory."""

from contextlib import AsyncExitStack

from crosslogic.cache.idempotency.memory import MemorySlots
from crosslogic.cache.idempotency.redis import RedisSlots
from crosslogic.cache.idempotency.service import Idempotency
from crosslogic.cache.memory import MemoryCache
from crosslogic.cache.model import CachePolicy, Mode
from crosslogic.cache.null import NullCache
from crosslogic.cache.ports import ResponseCache
from crosslogic.cache.redis import RedisCache
from crosslogic.cache.salt import Salts
from crosslogic.cache.service import Answers
from crosslogic.kernel.clock import SystemClock
from crosslogic.net.redis import RedisConnection
from crosslogic.settings.model import Settings

_UNPEPPERED = b"crosslogic"  # tenants cannot choose the org that is salted, so even a known secret keeps them apart


async def new_answers(settings: Settings, stack: AsyncExitStack) -> Answers:
    """Idempotency keys work always, the response cache with `enable_caching`."""
    clock = SystemClock()
    url = settings.redis.address()
    # A connection of its own: a long answer must not hold up the limits' calls.
    connection = None if url is None else await RedisConnection.connect(url, required=False)
    if connection is not None:
        stack.push_async_callback(connection.close)
    slots = MemorySlots(clock) if connection is None else RedisSlots(connection, clock)
    policy = CachePolicy(Mode(settings.cache.mode), settings.cache.unasked, settings.cache.default_ttl_s)
    if not settings.enable_caching:
        policy = CachePolicy(Mode.NEVER)
    return Answers(_cache(settings, connection), Idempotency(slots), lambda _: policy, clock)


def prefix_salts(settings: Settings) -> Salts:
    pepper = settings.auth.key_pepper
    return Salts(pepper.get_secret_value().encode() if pepper is not None else _UNPEPPERED)


def _cache(settings: Settings, connection: RedisConnection | None) -> ResponseCache:
    if not settings.enable_caching:
        return NullCache()
    if connection is not None and settings.cache.backend == "redis":
        return RedisCache(connection, SystemClock())
    return MemoryCache(SystemClock())
