"""Who may speak for which node: join tokens, certificates, and what is refused.

Invariants: a token makes one node, once; a certificate that this service did not record counts for nothing, whoever
signed it; what is revoked is refused by every control process within a second; every refusal is in the audit log,
the same one at most once a minute, so that nobody fills it. (Architecture document §44.1, §46.)
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.fleet import join_token, sql, trust_sql
from crosslogic.fleet.authority import Authority
from crosslogic.fleet.identity import NodeIdentity, is_node_id
from crosslogic.fleet.trust_sql import CERTIFICATE_CHANGED, CertificateRecord, TokenRecord, Trail
from crosslogic.fleet.verification import Verification
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unauthenticated
from crosslogic.kernel.ids import NodeId, OrgId, new_id, new_node_id
from crosslogic.store.changes import append_change

CERTIFICATE_LIFETIME = timedelta(days=7)
TOKEN_TTL = timedelta(hours=1)
LONGEST_TOKEN_TTL = timedelta(days=30)


class CreatedToken(msgspec.Struct, frozen=True):
    """A new token with its text, which is shown once and kept nowhere."""

    record: TokenRecord
    text: str

    def __repr__(self) -> str:
        return f"CreatedToken({self.record.id})"


class JoinRequest(msgspec.Struct, frozen=True):
    """What a machine sends to become a node: a certificate request, signed with the token's key as well."""

    public_key: bytes
    signature: bytes
    csr_der: bytes
    node_id: str = ""  # empty: one is made


class Joined(msgspec.Struct, frozen=True):
    record: CertificateRecord
    certificate_pem: bytes
    ca_pem: bytes


class Trust(Verification):
    """Raises what SQLAlchemy raises when the database is away. `trail_of` gives the audit trail of a node."""

    def __init__(
        self,
        engine: AsyncEngine,
        authority: Authority,
        clock: Clock,
        trail_of: Callable[[str], Trail],
        lifetime: timedelta = CERTIFICATE_LIFETIME,
    ) -> None:
        super().__init__(engine, clock, trail_of)
        self._lifetime = lifetime
        self.authority = authority

    def now(self) -> datetime:
        """By the clock that tokens and certificates expire by."""
        return self._clock.now()

    async def create_token(
        self, by: Trail, *, org_id: OrgId | None, region: str, ttl: timedelta = TOKEN_TTL
    ) -> CreatedToken:
        """Raises InvalidRequest."""
        if not timedelta(0) < ttl <= LONGEST_TOKEN_TTL:
            raise InvalidRequest(f"a join token lives up to {LONGEST_TOKEN_TTL.days} days", param="ttl_s")
        token = join_token.new_token(self.authority.fingerprint)
        now = self._clock.now()
        record = TokenRecord(new_id("join"), org_id, region, now, now + ttl)
        async with self._engine.begin() as conn:
            await trust_sql.add_token(conn, record, join_token.stored_hash(token.public_key))
            shown = {"org_id": org_id, "region": region, "expires_at": record.expires_at}
            await by.append(conn, "node_token.create", record.id, org_id=org_id, before=None, after=shown)
        return CreatedToken(record, token.text)

    async def revoke_token(self, by: Trail, token_id: str) -> TokenRecord:
        """Harmless to repeat. Raises NotFound."""
        now = self._clock.now()
        async with self._engine.begin() as conn:
            record = await trust_sql.token_of_id(conn, token_id)
            if record is None:
                raise NotFound("there is no such join token")
            if record.unusable(now) is None:
                record = msgspec.structs.replace(record, revoked_at=now)
                await trust_sql.change_token(conn, token_id, revoked_at=now)
                await by.append(conn, "node_token.revoke", token_id, org_id=record.org_id, before=None, after=None)
        return record

    async def tokens(
        self, *, org_id: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[TokenRecord]:
        return await trust_sql.tokens(self._engine, org_id=org_id, after=after, limit=limit)

    async def certificates(
        self, *, node_id: str | None = None, org_id: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[CertificateRecord]:
        return await trust_sql.certificates(self._engine, node_id=node_id, org_id=org_id, after=after, limit=limit)

    async def join(self, request: JoinRequest, address: str) -> Joined:
        """The first certificate of a node. Raises Unauthenticated for a token that is none, or is none any more,
        Forbidden for a request with somebody else's names, Conflict for a node id that is taken, InvalidRequest."""
        try:
            join_token.check_signature(request.public_key, request.signature, request.csr_der, request.node_id)
        except Unauthenticated:
            await self.refuse("join_signature", address)
            raise
        if request.node_id and not is_node_id(request.node_id):
            raise InvalidRequest("a node id is of letters, digits, '-', '_' and '.'", param="node_id")
        node_id = NodeId(request.node_id) or new_node_id()
        now = self._clock.now()
        refused: tuple[str, TokenRecord | None] | None = None
        async with self._engine.begin() as conn:
            await sql.lock_registrations(conn)  # two tokens at once must not make the same node
            token = await trust_sql.token_of_hash(conn, join_token.stored_hash(request.public_key))
            why = "unknown" if token is None else token.unusable(now)
            if token is None or why is not None:
                refused = (f"join_token_{why}", token)
            elif await self._is_taken(conn, node_id, token.org_id):
                refused = ("node_id_taken", token)
            else:
                identity = NodeIdentity(node_id, token.org_id)
                try:
                    issued = self.authority.sign(request.csr_der, identity, now, self._lifetime)
                except Forbidden:
                    refused = ("foreign_identity", token)
                else:
                    await trust_sql.change_token(conn, token.id, used_at=now, used_by=node_id)
                    record = CertificateRecord(
                        issued.serial, node_id, token.org_id, token.region, issued.issued_at, issued.expires_at
                    )
                    await trust_sql.add_certificate(conn, record)
                    shown = {"token": token.id, "serial": issued.serial, "expires_at": issued.expires_at}
                    await self._trail_of(node_id).append(
                        conn, "node.join", node_id, org_id=token.org_id, before=None, after=shown
                    )
                    return Joined(record, issued.certificate_pem, self.authority.ca_pem)
        reason, token = refused
        await self.refuse(reason, address, entity_id=node_id, org_id=token.org_id if token else None)
        if reason == "node_id_taken":
            raise Conflict("a node of this id has a certificate; revoke it with `crosslogic nodes revoke`")
        if reason == "foreign_identity":
            raise Forbidden("the request asks for another identity than the token gives", code="foreign_identity")
        raise Unauthenticated(f"this join token is {reason.removeprefix('join_token_')}; make a new one")

    async def renew(self, held: CertificateRecord, csr_der: bytes, address: str) -> Joined:
        """Another certificate for whoever holds a valid one. Raises Forbidden and InvalidRequest."""
        now = self._clock.now()
        try:
            issued = self.authority.sign(csr_der, held.identity, now, self._lifetime)
        except Forbidden:
            await self.refuse("foreign_identity", address, entity_id=held.node_id, org_id=held.org_id)
            raise
        record = msgspec.structs.replace(
            held, serial=issued.serial, issued_at=issued.issued_at, expires_at=issued.expires_at
        )
        async with self._engine.begin() as conn:
            if held.serial not in {one.serial for one in await trust_sql.valid_certificates(conn, held.node_id, now)}:
                raise Unauthenticated("this certificate counts no more")
            await trust_sql.add_certificate(conn, record)
            shown = {"serial": issued.serial, "expires_at": issued.expires_at}
            trail = self._trail_of(held.node_id)
            await trail.append(conn, "node.renew", held.node_id, org_id=held.org_id, before=None, after=shown)
        return Joined(record, issued.certificate_pem, self.authority.ca_pem)

    async def revoke(self, by: Trail, node_id: str) -> list[CertificateRecord]:
        """Refuse all certificates of the node from now on; harmless to repeat. Raises NotFound."""
        if not await self.certificates(node_id=node_id, limit=1):
            raise NotFound("no node of this id ever had a certificate")
        now = self._clock.now()
        async with self._engine.begin() as conn:
            valid = await trust_sql.valid_certificates(conn, node_id, now)
            if valid:
                await trust_sql.revoke(conn, [record.serial for record in valid], now)
                shown = {"serials": [record.serial for record in valid]}
                await by.append(conn, "node.revoke", node_id, org_id=valid[0].org_id, before=None, after=shown)
                for record in valid:
                    await append_change(conn, CERTIFICATE_CHANGED, record.serial)
        for record in valid:
            self.forget(record.serial)
        return valid

    async def _is_taken(self, conn: AsyncConnection, node_id: NodeId, org_id: OrgId | None) -> bool:
        """Whether somebody else speaks for this node, or owns it."""
        if await trust_sql.valid_certificates(conn, node_id, self._clock.now()):
            return True
        node = await sql.read_for_update(conn, node_id)
        return node is not None and (node.static or node.org_id != org_id)
