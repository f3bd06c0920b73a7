"""Each org's hours in one row each, kept by a trigger; the sums of all roll-ups in their keys' indexes on PostgreSQL.

A month of an org lies together in an index that begins with org and time. Its rows lie apart, each on the page where
there was room when it came or was last added to; so to read them from a disk costs a read for each. With the sums in
the index no row is read, as long as vacuum has seen its page: it comes often, and clears the index each time.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
GROUP = ("env_id", "key_id", "model", "region", "endpoint", "outcome")
COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "total_tokens")
SUMS = (*COUNTS, "cost_pusd")
KEYS = {
    "usage_hourly": ("org_id", "at", *GROUP),
    "usage_daily": ("org_id", "at", *GROUP),
    "usage_hours": ("org_id", "at"),
}
# One row in a hundred, whatever came or changed: what vacuum has not seen is read from the table as well.
VACUUMED = {
    "autovacuum_vacuum_threshold": "5000",
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_insert_threshold": "5000",
    "autovacuum_vacuum_insert_scale_factor": "0.01",
    "vacuum_index_cleanup": "on",  # else pages with few dead rows keep them, and are not told to be all visible
}


def upgrade() -> None:
    op.create_table(
        "usage_hours",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        sa.Column("cost_pusd", MONEY, nullable=False),
        sa.PrimaryKeyConstraint("org_id", "at", name="pk_usage_hours"),
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("LOCK TABLE usage_hourly, usage_daily IN ACCESS EXCLUSIVE MODE")  # what sums now waits
        _keep_on_postgresql()
        for table, key in KEYS.items():
            _new_key(table, key, f"INCLUDE ({', '.join(SUMS)})")
            op.execute(
                f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in VACUUMED.items())})"
            )
    else:
        _keep_on_sqlite()


def _put(sums: str, source: str, changed: str) -> str:
    into = f"INSERT INTO usage_hours AS known (org_id, at, {', '.join(SUMS)})"
    key = "org_id, at"
    summed = f"SELECT {key}, {sums} FROM {source} GROUP BY {key} ORDER BY {key}"  # noqa: S608
    return f"{into} {summed} ON CONFLICT ({key}) DO UPDATE SET {changed}"


def _keep_on_postgresql() -> None:
    """What each statement adds, and nothing else is read. Sorted, so that two writers wait for each other in turn."""
    sums = ", ".join(f"sum({name})" for name in SUMS)
    added = ", ".join(f"{name} = known.{name} + excluded.{name}" for name in SUMS)
    taken = ", ".join(f"-{name} AS {name}" for name in SUMS)
    names = f"org_id, at, {', '.join(SUMS)}"
    changed = f"(SELECT {names} FROM added UNION ALL SELECT org_id, at, {taken} FROM gone) AS changed"  # noqa: S608
    for event, source, old in (("insert", "added", ""), ("update", changed, "OLD TABLE AS gone")):
        op.execute(
            f"CREATE FUNCTION usage_hourly_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ "
            f"BEGIN {_put(sums, source, added)}; RETURN NULL; END $$"
        )
        op.execute(
            f"CREATE TRIGGER usage_hourly_summed_on_{event} AFTER {event.upper()} ON usage_hourly "
            f"REFERENCING NEW TABLE AS added {old} FOR EACH STATEMENT EXECUTE FUNCTION usage_hourly_{event}()"
        )
    op.execute(_put(sums, "usage_hourly", added))


def _keep_on_sqlite() -> None:
    """Row by row, so as the sum over the few rows of the hour."""
    sums = ", ".join("exact_sum(cost_pusd)" if name == "cost_pusd" else f"sum({name})" for name in SUMS)
    put = ", ".join(f"{name} = excluded.{name}" for name in SUMS)
    for event in ("insert", "update"):
        of_changed = "usage_hourly WHERE org_id = NEW.org_id AND at = NEW.at"
        op.execute(
            f"CREATE TRIGGER usage_hourly_summed_on_{event} AFTER {event.upper()} ON usage_hourly "
            f"BEGIN {_put(sums, of_changed, put).replace(' AS known', '')}; END"
        )
    op.execute(_put(sums, "usage_hourly WHERE true", put))


def _new_key(table: str, key: tuple[str, ...], include: str) -> None:
    op.execute(f"CREATE UNIQUE INDEX {table}_key ON {table} ({', '.join(key)}) {include}")
    op.execute(
        f"ALTER TABLE {table} DROP CONSTRAINT pk_{table}, ADD CONSTRAINT pk_{table} PRIMARY KEY USING INDEX {table}_key"
    )


def downgrade() -> None:
    postgresql = op.get_context().dialect.name == "postgresql"
    for event in ("insert", "update"):
        op.execute(f"DROP TRIGGER usage_hourly_summed_on_{event}" + (" ON usage_hourly" if postgresql else ""))
    op.drop_table("usage_hours")
    if postgresql:
        for event in ("insert", "update"):
            op.execute(f"DROP FUNCTION usage_hourly_{event}()")
        for table in ("usage_hourly", "usage_daily"):
            _new_key(table, KEYS[table], "")
            op.execute(f"ALTER TABLE {table} RESET ({', '.join(VACUUMED)})")
