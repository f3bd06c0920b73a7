"""Price versions and exchange rates in the database.

Invariant: whoever publishes or retires holds the prices alone until the end of the transaction, whoever rates holds
them with others; so no usage is rated by prices that are just being replaced.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import RowMapping, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crosslogic.pricing.terms import PriceTerms
from crosslogic.pricing.versions import ExchangeRate, PriceHistory, PriceVersion, VersionSource, VersionStatus
from crosslogic.store.tables import exchange_rates, price_versions

_PRICES_LOCK = 0x636C_736B_0030


async def hold_prices(conn: AsyncConnection, *, alone: bool) -> None:
    """Until the end of the transaction; SQLite has one writer anyway."""
    if conn.dialect.name == "postgresql":
        function = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        await conn.execute(text(f"SELECT {function}(:lock)"), {"lock": _PRICES_LOCK})


def version_columns(version: PriceVersion) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(version),
        "status": version.status.value,
        "source": version.source.value,
        "terms": terms_text(version.terms),
    }


def terms_text(terms: PriceTerms) -> str:
    """Regions stay in the order in which they are asked."""
    return msgspec.json.encode(terms).decode()


def to_version(row: Mapping[str, Any] | RowMapping) -> PriceVersion:
    return PriceVersion(
        **{
            **dict(row),
            "status": VersionStatus(row["status"]),
            "source": VersionSource(row["source"]),
            "terms": msgspec.json.decode(row["terms"], type=PriceTerms),
        }
    )


def to_rate(row: Mapping[str, Any] | RowMapping) -> ExchangeRate:
    return ExchangeRate(**{**dict(row), "rate": Decimal(row["rate"])})


class PriceShelf:
    """The history as rating asks for it: read once, and again when somebody has published."""

    def __init__(self) -> None:
        self._stamp: object = None
        self._history = PriceHistory((), ())

    async def history(self, conn: AsyncConnection) -> PriceHistory:
        versions, rates = price_versions.c, exchange_rates.c
        lasting = versions.status != VersionStatus.DRAFT.value
        counts = select(func.count(), func.count(versions.retired_from), func.max(versions.published_at)).where(lasting)
        stamp = (
            tuple((await conn.execute(counts)).one()),
            tuple((await conn.execute(select(func.count(), func.max(rates.created_at)))).one()),
        )
        if stamp != self._stamp:
            found = (await conn.execute(select(price_versions).where(lasting))).mappings()
            known = (await conn.execute(select(exchange_rates))).mappings()
            self._history = PriceHistory([to_version(row) for row in found], [to_rate(row) for row in known])
            self._stamp = stamp
        return self._history
