"""A process that drops months of the ledger until it is killed.

    python -m tests.chaos.retention_process DATABASE_URL NOW [POINT]

NOW is an ISO time. With POINT it ends where `kernel/crash_points.py` says.
"""

import asyncio
import sys
from datetime import datetime

from crosslogic.billing.charges.service import RatingService
from crosslogic.billing.retention.service import RetentionService
from crosslogic.kernel import crash_points
from crosslogic.kernel.clock import ManualClock
from crosslogic.store.engine import create_engine
from crosslogic.tenancy.audit_sql import AuditTrail


async def main(url: str, now: datetime) -> None:
    engine = create_engine(url)
    clock = ManualClock(now)
    rating = RatingService(engine, clock)
    await RetentionService(engine, clock, AuditTrail(clock=clock), rating, months=2, billed=False).round()
    await engine.dispose()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        crash_points.arm(sys.argv[3])
    asyncio.run(main(sys.argv[1], datetime.fromisoformat(sys.argv[2])))
