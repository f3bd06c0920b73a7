"""Chooses where answers are kept that are given again: Redis for all workers, else this process's memory."""

import math
from contextlib import AsyncExitStack

from crosslogic.cache.elsewhere import CachesElsewhere
from crosslogic.cache.idempotency.memory import MemorySlots
from crosslogic.cache.idempotency.ports import Slots
from crosslogic.cache.idempotency.redis import RedisSlots
from crosslogic.cache.idempotency.service import Idempotency
from crosslogic.cache.memory import MemoryCache
from crosslogic.cache.null import NullCache
from crosslogic.cache.ports import KeptAnswers, ResponseCache
from crosslogic.cache.redis import RedisCache
from crosslogic.cache.salt import Salts
from crosslogic.cache.service import Answers
from crosslogic.kernel.clock import SystemClock
from crosslogic.net.redis import RedisConnection
from crosslogic.settings.model import Settings
from crosslogic.telemetry.metrics import Metrics

ORG_BYTES_IN_REDIS = 256 * 1024 * 1024
_UNPEPPERED = b"crosslogic"  # tenants cannot choose the org that is salted, so even a known secret keeps them apart


async def new_answers(settings: Settings, stack: AsyncExitStack, metrics: Metrics) -> Answers:
    """Idempotency keys work always, the response cache with `enable_caching`."""
    clock, chosen = SystemClock(), settings.idempotency
    connection = await _connection(settings, stack)
    slots: Slots = MemorySlots(clock, ttl_s=chosen.ttl_s, most_bytes=chosen.max_memory_bytes)
    if connection is not None:
        slots = RedisSlots(
            connection,
            clock,
            ttl_s=chosen.ttl_s,
            strict=chosen.strict,
            most_answer_bytes=settings.cache.max_answer_bytes,
            most_org_bytes=chosen.max_org_bytes,
        )
    return Answers(
        _cache(settings, connection, metrics),
        Idempotency(slots, observer=metrics),
        clock,
        most_answer_bytes=settings.cache.max_answer_bytes,
        key_ttl_s=math.ceil(chosen.ttl_s),
        observer=metrics,
    )


async def kept_answers(settings: Settings, stack: AsyncExitStack) -> KeptAnswers:
    """What a process without a gateway sees of the gateways' caches."""
    if not settings.enable_caching:
        return NullCache()
    if settings.cache.backend == "redis":
        connection = await _connection(settings, stack)
        if connection is not None:
            return _redis(settings, connection, None)
    return CachesElsewhere()


def prefix_salts(settings: Settings) -> Salts:
    pepper = settings.auth.key_pepper
    return Salts(pepper.get_secret_value().encode() if pepper is not None else _UNPEPPERED)


async def _connection(settings: Settings, stack: AsyncExitStack) -> RedisConnection | None:
    """One of its own: a long answer must not hold up the limits' calls."""
    url = settings.redis.address()
    if url is None:
        return None
    connection = await RedisConnection.connect(url, required=False)
    stack.push_async_callback(connection.close)
    return connection


def _cache(settings: Settings, connection: RedisConnection | None, metrics: Metrics) -> ResponseCache:
    cache = settings.cache
    if not settings.enable_caching:
        return NullCache()
    if connection is not None and cache.backend == "redis":
        return _redis(settings, connection, metrics)
    return MemoryCache(
        SystemClock(),
        most_bytes=cache.max_memory_bytes,
        most_org_bytes=cache.max_org_bytes,
        most_org_answers=cache.max_org_answers,
        observer=metrics,
    )


def _redis(settings: Settings, connection: RedisConnection, metrics: Metrics | None) -> RedisCache:
    cache = settings.cache
    return RedisCache(
        connection,
        SystemClock(),
        most_org_bytes=cache.max_org_bytes if cache.max_org_bytes is not None else ORG_BYTES_IN_REDIS,
        most_org_answers=cache.max_org_answers,
        most_answer_bytes=cache.max_answer_bytes,
        observer=metrics,
    )
