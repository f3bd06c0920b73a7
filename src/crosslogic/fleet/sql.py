"""Nodes in the database.

Invariant: every change that gateways should know of commits together with its row in the change feed.
Functions that take a connection run in the transaction of their caller.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import delete, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.fleet.rows import node_columns, to_node
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.store.changes import append_change
from crosslogic.store.engine import reading
from crosslogic.store.tables import nodes

NODE_CHANGED = "node"

_REGISTRATION_LOCK = 0x636C_736B_0010


class NodeFilter(msgspec.Struct, frozen=True):
    """Which nodes to list; None lets all pass."""

    status: NodeStatus | None = None
    region: str | None = None
    model: str | None = None
    org_id: OrgId | None = None


async def lock_registrations(conn: AsyncConnection) -> None:
    """One registration at a time, so that an address is not registered twice; SQLite has one writer anyway."""
    if conn.dialect.name == "postgresql":
        await conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _REGISTRATION_LOCK})


async def read_for_update(conn: AsyncConnection, node_id: NodeId) -> Node | None:
    """The node, held against other writers until the transaction ends."""
    row = (await conn.execute(select(nodes).where(nodes.c.id == node_id).with_for_update())).mappings().first()
    return None if row is None else to_node(row)


async def at_endpoint(conn: AsyncConnection, endpoint_url: str) -> Node | None:
    query = select(nodes).where(nodes.c.endpoint_url == endpoint_url).order_by(nodes.c.id).limit(1)
    row = (await conn.execute(query.with_for_update())).mappings().first()
    return None if row is None else to_node(row)


async def write(conn: AsyncConnection, node: Node, *, known: bool, announce: bool) -> None:
    """Insert or update. Raises InvalidRequest when its org does not exist."""
    columns = node_columns(node)
    try:
        if known:
            await conn.execute(update(nodes).where(nodes.c.id == node.id).values(columns))
        else:
            await conn.execute(insert(nodes).values(columns))
    except IntegrityError:
        raise InvalidRequest("there is no org of this id", param="org_id") from None
    if announce:
        await append_change(conn, NODE_CHANGED, node.id)


async def remove(conn: AsyncConnection, node_id: NodeId) -> None:
    await conn.execute(delete(nodes).where(nodes.c.id == node_id))
    await append_change(conn, NODE_CHANGED, node_id)


async def fetch(engine: AsyncEngine, ids: Sequence[str] | None = None) -> list[Node]:
    """The nodes of these ids, or all."""
    query = select(nodes).order_by(nodes.c.id)
    if ids is not None:
        query = query.where(nodes.c.id.in_(ids))
    async with reading(engine) as conn:
        return [to_node(row) for row in (await conn.execute(query)).mappings()]


async def fetch_page(engine: AsyncEngine, wanted: NodeFilter, *, after: str | None, limit: int) -> list[Node]:
    """Up to `limit` nodes in the order of their ids, beginning after `after`."""
    query = select(nodes).order_by(nodes.c.id)
    for column, value in (
        (nodes.c.status, wanted.status.value if wanted.status is not None else None),
        (nodes.c.region, wanted.region),
        (nodes.c.org_id, wanted.org_id),
    ):
        if value is not None:
            query = query.where(column == value)
    found: list[Node] = []
    async with reading(engine) as conn:
        while len(found) < limit:
            page = query.limit(limit) if after is None else query.where(nodes.c.id > after).limit(limit)
            read = [to_node(row) for row in (await conn.execute(page)).mappings()]
            # The two databases look into JSON lists each in its own way; a page is small enough to look here.
            found += [node for node in read if wanted.model is None or wanted.model in node.models]
            if len(read) < limit:
                break
            after = read[-1].id
    return found[:limit]


async def fetch_doubtful(engine: AsyncEngine, *, heard_before: datetime) -> list[Node]:
    """Nodes that something may have to be done about: silent, draining or dead."""
    query = select(nodes).where(
        or_(
            nodes.c.last_heartbeat_at <= heard_before,
            nodes.c.status.in_([NodeStatus.DRAINING.value, NodeStatus.DEAD.value]),
        )
    )
    async with reading(engine) as conn:
        return [to_node(row) for row in (await conn.execute(query)).mappings()]
