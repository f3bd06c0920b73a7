"""Whether a certificate that somebody shows counts, in any process that nodes come to: control, and gateways.

Invariants: a certificate that has no row counts for nothing, whoever signed it; what is revoked is refused within a
second by every process that follows the change feed; every refusal is in the audit log, the same one at most once a
minute, so that nobody fills it. (Architecture document §44.1, §46.)
"""

from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet import trust_sql
from crosslogic.fleet.authority import presented
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.fleet.trust_sql import CERTIFICATE_CHANGED, CertificateRecord, Trail
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Unauthenticated
from crosslogic.store.changes import Change

REFUSALS_A_MINUTE = 60
_REMEMBERED = 100_000


class Verification:
    """Raises what SQLAlchemy raises when the database is away. `trail_of` gives the audit trail of a node."""

    def __init__(self, engine: AsyncEngine, clock: Clock, trail_of: Callable[[str], Trail]) -> None:
        self._engine = engine
        self._clock = clock
        self._trail_of = trail_of
        self._known: dict[str, CertificateRecord] = {}
        self._presented: dict[bytes, tuple[str, NodeIdentity | None]] = {}
        self._told_s: dict[tuple[str, str], float] = {}

    async def verify(self, certificate_der: bytes, address: str) -> CertificateRecord:
        """Whose certificate it is, once a handshake has proved that the CA signed it and that it has not expired.

        Raises Unauthenticated.
        """
        seen = self._presented.get(certificate_der)
        if seen is None:
            if len(self._presented) >= _REMEMBERED:
                self._presented.clear()
            seen = self._presented[certificate_der] = presented(certificate_der)
        serial, identity = seen
        record = self._known.get(serial) or await self._recorded(serial)
        return await self._judged(record, identity, serial, address)

    async def verify_record(self, held: CertificateRecord, address: str) -> CertificateRecord:
        """Whether a certificate that was verified before still counts. Raises Unauthenticated."""
        record = self._known.get(held.serial) or await self._recorded(held.serial)
        return await self._judged(record, held.identity, held.serial, address)

    async def _judged(
        self, record: CertificateRecord | None, identity: NodeIdentity | None, serial: str, address: str
    ) -> CertificateRecord:
        if record is None:
            reason = "unknown_certificate"
        elif record.revoked_at is not None:
            reason = "revoked"
        elif self._clock.now() >= record.expires_at:
            reason = "expired"
        elif identity != record.identity:
            reason = "foreign_identity"
        else:
            return record
        shown = record.node_id if record is not None else serial
        await self.refuse(reason, address, entity_id=shown, org_id=record.org_id if record else None)
        raise Unauthenticated(f"this certificate is refused: {reason.replace('_', ' ')}")

    def forget(self, serial: str) -> None:
        """Read the certificate's record anew when it is next presented."""
        self._known.pop(serial, None)

    async def load(self) -> None:
        """Read every record anew when it is next needed, as the feed's follower."""
        self._known.clear()

    async def apply(self, changes: Sequence[Change]) -> None:
        """What other processes revoke counts here, too."""
        for change in changes:
            if change.kind == CERTIFICATE_CHANGED:
                self.forget(change.entity_id)

    async def refuse(self, reason: str, address: str, *, entity_id: str = "", org_id: str | None = None) -> None:
        """Write a refusal into the audit log, unless the same one stands there already for the last minute."""
        now_s = self._clock.monotonic_s()
        self._told_s = {told: at_s for told, at_s in self._told_s.items() if now_s - at_s < 60.0}
        who = (reason, entity_id or address)
        if who in self._told_s or len(self._told_s) >= REFUSALS_A_MINUTE:
            return
        self._told_s[who] = now_s
        shown = {"reason": reason, "address": address}
        async with self._engine.begin() as conn:
            trail = self._trail_of(entity_id or "unknown")
            await trail.append(conn, "node.refuse", entity_id or address, org_id=org_id, before=None, after=shown)

    async def _recorded(self, serial: str) -> CertificateRecord | None:
        record = await trust_sql.certificate(self._engine, serial)
        if record is not None and record.revoked_at is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[serial] = record
        return record
