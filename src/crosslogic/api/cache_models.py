"""Bodies of the response cache's management. What an answer says is in none of them."""

from datetime import UTC, datetime

from pydantic import BaseModel, Field

from crosslogic.api.models import Body, Word
from crosslogic.cache.model import Entry


class CacheClearing(Body):
    """What to forget; with neither, all of the org's answers."""

    environment: Word | None = Field(default=None, description="id, or name within the org")
    model: Word | None = Field(default=None, description="canonical name")


class OrgCacheClearing(CacheClearing):
    org: Word = Field(description="id or name")


class ClearedView(BaseModel):
    cleared: int | None = Field(
        description="answers that are forgotten; null: each gateway worker forgets its own within a second"
    )


class EntryView(BaseModel):
    key: str = Field(description="as `x-cache-key` told it")
    request_id: str = Field(description="the request that a node answered")
    env_id: str
    endpoint: str
    model: str
    streamed: bool
    size_bytes: int = Field(description="that it takes where it is kept")
    hit_count: int
    cached_at: datetime
    age_s: float
    ttl_s: float = Field(description="left")

    @classmethod
    def of(cls, entry: Entry) -> "EntryView":
        cached_at = datetime.fromtimestamp(entry.cached_at_s, UTC)
        return cls(
            key=entry.key.shown,
            request_id=entry.request_id,
            env_id=entry.env_id,
            endpoint=entry.endpoint,
            model=entry.model,
            streamed=entry.streamed,
            size_bytes=entry.size_bytes,
            hit_count=entry.hit_count,
            cached_at=cached_at,
            age_s=max(0.0, round((datetime.now(UTC) - cached_at).total_seconds(), 3)),
            ttl_s=round(entry.ttl_s, 3),
        )
