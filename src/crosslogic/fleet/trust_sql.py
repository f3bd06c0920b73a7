"""Join tokens and certificates of nodes in the database.

Functions that take a connection run in the transaction of their caller.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec
from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.fleet.identity import NodeIdentity
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import node_agents, node_certificates, node_join_tokens, nodes

RETENTION = timedelta(days=30)  # of what has expired
CERTIFICATE_CHANGED = "node_certificate"


class Trail(Protocol):
    """Where one actor's deeds are written down, in the transaction of the deed: `tenancy.audit_sql.AuditTrail`."""

    async def append(
        self,
        conn: AsyncConnection,
        action: str,
        entity_id: str,
        *,
        org_id: str | None,
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
    ) -> None: ...


class TokenRecord(msgspec.Struct, frozen=True):
    """A join token as it is kept: all but the token."""

    id: str
    org_id: OrgId | None
    region: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    used_by: NodeId | None = None
    revoked_at: datetime | None = None

    def unusable(self, now: datetime) -> str | None:
        """Why it makes no node; None when it does."""
        if self.revoked_at is not None:
            return "revoked"
        if self.used_at is not None:
            return "used"
        return "expired" if now >= self.expires_at else None

    def status(self, now: datetime) -> str:
        return self.unusable(now) or "usable"


class CertificateRecord(msgspec.Struct, frozen=True):
    """A certificate that the CA gave out."""

    serial: str
    node_id: NodeId
    org_id: OrgId | None
    region: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    @property
    def identity(self) -> NodeIdentity:
        return NodeIdentity(self.node_id, self.org_id)

    def status(self, now: datetime) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if now >= self.expires_at else "valid"


async def add_token(conn: AsyncConnection, record: TokenRecord, token_hash: bytes) -> None:
    """Raises InvalidRequest when its org does not exist."""
    try:
        await conn.execute(insert(node_join_tokens).values(**msgspec.structs.asdict(record), token_hash=token_hash))
    except IntegrityError:
        raise InvalidRequest("there is no org of this id", param="org") from None


async def token_of_hash(conn: AsyncConnection, token_hash: bytes) -> TokenRecord | None:
    """The token, held against everybody else who would use it until the transaction ends."""
    query = select(node_join_tokens).where(node_join_tokens.c.token_hash == token_hash).with_for_update()
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else _token(row)


async def token_of_id(conn: AsyncConnection, token_id: str) -> TokenRecord | None:
    query = select(node_join_tokens).where(node_join_tokens.c.id == token_id).with_for_update()
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else _token(row)


async def change_token(conn: AsyncConnection, token_id: str, **values: Any) -> None:
    await conn.execute(update(node_join_tokens).where(node_join_tokens.c.id == token_id).values(**values))


async def tokens(engine: AsyncEngine, *, org_id: str | None, after: str | None, limit: int) -> list[TokenRecord]:
    """In the order in which they were made."""
    query = select(node_join_tokens).order_by(node_join_tokens.c.id).limit(limit)
    if org_id is not None:
        query = query.where(node_join_tokens.c.org_id == org_id)
    if after is not None:
        query = query.where(node_join_tokens.c.id > after)
    async with reading(engine) as conn:
        return [_token(row) for row in (await conn.execute(query)).mappings()]


async def add_certificate(conn: AsyncConnection, record: CertificateRecord) -> None:
    await conn.execute(insert(node_certificates).values(**msgspec.structs.asdict(record)))


async def certificate(engine: AsyncEngine, serial: str) -> CertificateRecord | None:
    query = select(node_certificates).where(node_certificates.c.serial == serial)
    async with reading(engine) as conn:
        row = (await conn.execute(query)).mappings().first()
    return None if row is None else _certificate(row)


async def valid_certificates(conn: AsyncConnection, node_id: str, now: datetime) -> list[CertificateRecord]:
    """The node's certificates that still count, held until the transaction ends."""
    query = (
        select(node_certificates)
        .where(
            node_certificates.c.node_id == node_id,
            node_certificates.c.revoked_at.is_(None),
            node_certificates.c.expires_at > now,
        )
        .order_by(node_certificates.c.serial)
        .with_for_update()
    )
    return [_certificate(row) for row in (await conn.execute(query)).mappings()]


async def revoke(conn: AsyncConnection, serials: Sequence[str], at: datetime) -> None:
    await conn.execute(update(node_certificates).where(node_certificates.c.serial.in_(serials)).values(revoked_at=at))


async def certificates(
    engine: AsyncEngine, *, node_id: str | None, org_id: str | None, after: str | None, limit: int
) -> list[CertificateRecord]:
    """In the order of their serial numbers."""
    query = select(node_certificates).order_by(node_certificates.c.serial).limit(limit)
    for column, value in ((node_certificates.c.node_id, node_id), (node_certificates.c.org_id, org_id)):
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        query = query.where(node_certificates.c.serial > after)
    async with reading(engine) as conn:
        return [_certificate(row) for row in (await conn.execute(query)).mappings()]


async def prune(engine: AsyncEngine, *, before: datetime) -> int:
    """Delete tokens and certificates that expired before `before`, and reports of nodes that are gone; how many."""
    async with engine.begin() as conn:
        done = [
            await conn.execute(delete(node_join_tokens).where(node_join_tokens.c.expires_at < before)),
            await conn.execute(delete(node_certificates).where(node_certificates.c.expires_at < before)),
            await conn.execute(
                delete(node_agents).where(
                    node_agents.c.updated_at < before, node_agents.c.node_id.not_in(select(nodes.c.id))
                )
            ),
        ]
    return sum(each.rowcount for each in done)


def _token(row: RowMapping) -> TokenRecord:
    return TokenRecord(**{name: row[name] for name in TokenRecord.__struct_fields__})


def _certificate(row: RowMapping) -> CertificateRecord:
    return CertificateRecord(**{name: row[name] for name in CertificateRecord.__struct_fields__})
