"""Column types that mean the same on PostgreSQL and SQLite.

Invariants: a datetime that comes out is aware and in UTC, money that comes out is an exact `int`.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, Numeric, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator, TypeEngine

Document = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

# Only INTEGER PRIMARY KEY counts by itself in SQLite; it has 64 bits all the same.
Sequence64 = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """TIMESTAMP WITH TIME ZONE; in SQLite fixed-width UTC text, which sorts as time does.

    A naive datetime is refused with ValueError instead of being taken for some local time.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} is a naive datetime; times in the database are aware")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Money(TypeDecorator[int]):
    """Whole pico-USD: NUMERIC(38, 0), and TEXT in SQLite, whose integers end at 9.2 million dollars."""

    impl = Numeric(38, 0)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(Numeric(38, 0))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | Decimal | None:
        if value is None:
            return None
        return str(value) if dialect.name == "sqlite" else Decimal(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


class exact_sum(GenericFunction[int]):  # noqa: N801 - reads as the SQL function that it is
    """SUM of a `Money` column without rounding on either database; None over no rows.

    In SQLite SUM of text is a float, so `store/engine.py` registers an aggregate of this name.
    """

    type = Money()
    inherit_cache = True


@compiles(exact_sum, "postgresql")
def _sum_on_postgresql(element: exact_sum, compiler: SQLCompiler, **kw: Any) -> str:
    return f"sum({compiler.process(element.clauses, **kw)})"


class exact_plus(GenericFunction[int]):  # noqa: N801 - reads as the SQL function that it is
    """The sum of two `Money` values without rounding on either database."""

    type = Money()
    inherit_cache = True


@compiles(exact_plus, "postgresql")
def _plus_on_postgresql(element: exact_plus, compiler: SQLCompiler, **kw: Any) -> str:
    left, right = element.clauses
    return f"({compiler.process(left, **kw)} + {compiler.process(right, **kw)})"
