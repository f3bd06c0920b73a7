"""What `/ready` asks: one check for each dependency; a check raises when its dependency does not do."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.gateway.operations import Check
from crosslogic.kernel.errors import Unavailable
from crosslogic.metering.journal import FileJournal


def database_check(engine: AsyncEngine) -> Check:
    async def check() -> None:
        async with engine.connect() as conn:
            await conn.execute(text("SELECT 1"))

    return check


def journal_check(journal: FileJournal) -> Check:
    async def check() -> None:
        if not journal.healthy:
            raise Unavailable("the journal cannot be written")

    return check
