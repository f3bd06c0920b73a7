"""The ledger becomes a log for each org: numbered, chained by hashes, with corrections as rows of their own.

Rows that are there get their places by time of arrival. Gateways of the version before cannot write rows any more;
their journals keep what was used until they are replaced, and lose nothing.
On PostgreSQL each month of request ids has a partition of its own. Ids begin with their time, so the key stays unique
over all of them.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)
PAGE = 5_000
# What the hash covers: names in order, nulls left out. Never to be changed: `metering/ledger_row.py` says the same.
DOMAIN = b"crosslogic usage 1\n"
KEPT: tuple[tuple[str, Any, bool], ...] = (
    ("timestamp", TIME, False),
    ("org_id", sa.Text(), False),
    ("env_id", sa.Text(), False),
    ("key_id", sa.Text(), False),
    ("endpoint", sa.Text(), False),
    ("model", sa.Text(), False),
    ("region", sa.Text(), False),
    ("node_id", sa.Text(), False),
    ("prompt_tokens", sa.BigInteger(), False),
    ("completion_tokens", sa.BigInteger(), False),
    ("cached_tokens", sa.BigInteger(), False),
    ("reasoning_tokens", sa.BigInteger(), False),
    ("total_tokens", sa.BigInteger(), False),
    ("evidence", sa.Text(), False),
    ("outcome", sa.Text(), False),
    ("finish_reason", sa.Text(), True),
    ("http_status", sa.Integer(), False),
    ("streamed", sa.Boolean(), False),
    ("attempts", sa.Integer(), False),
    ("latency_ms", sa.BigInteger(), False),
    ("first_token_ms", sa.BigInteger(), True),
    ("client_request_id", sa.Text(), True),
    ("cost_pusd", MONEY, False),
    ("cost_microdollars", sa.BigInteger(), False),
    ("price_version", sa.Text(), True),
    ("failed_nodes", sa.Text(), True),
    ("region_asked", sa.Text(), True),
    ("failover", sa.Boolean(), False),
)
ZERO: dict[str, Any] = {"cost_pusd": sa.text("0"), "cost_microdollars": sa.text("0"), "failover": sa.false()}
INDEXES = ("ix_usage_records_org_id_timestamp", "ix_usage_records_key_id_timestamp")


def upgrade() -> None:
    postgresql = op.get_context().dialect.name == "postgresql"
    op.create_table(
        "usage_heads",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", name="pk_usage_heads"),
    )
    _move_away(postgresql)
    op.create_table(
        "usage_records",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        *(sa.Column(name, kind, nullable=null, server_default=ZERO.get(name)) for name, kind, null in KEPT),
        sa.Column("reason", sa.Text()),
        sa.Column("actor", sa.Text()),
        sa.Column("recorded_at", TIME),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "n", name="pk_usage_records"),
        postgresql_partition_by="RANGE (request_id)",
    )
    if postgresql:
        _partition()
    names = ", ".join(f'"{name}"' for name, _, _ in KEPT)
    op.execute(
        f"INSERT INTO usage_records (request_id, n, seq, {names}, hash) SELECT request_id, 0, "  # noqa: S608 - constants
        f'row_number() OVER (PARTITION BY org_id ORDER BY "timestamp", request_id), {names}, '
        f"{chr(39)}{chr(39)}{'::bytea' * postgresql} FROM usage_records_before"
    )
    op.create_index("ix_usage_records_org_id_seq", "usage_records", ["org_id", "seq"])
    op.create_index("ix_usage_records_org_id_timestamp", "usage_records", ["org_id", "timestamp"])
    op.create_index("ix_usage_records_key_id_timestamp", "usage_records", ["key_id", "timestamp"])
    _chain()
    op.drop_table("usage_records_before")
    (_guard_on_postgresql if postgresql else _guard_on_sqlite)()


def _move_away(postgresql: bool) -> None:
    for index in INDEXES:
        op.drop_index(index, "usage_records")
    op.rename_table("usage_records", "usage_records_before")
    if postgresql:
        op.execute("ALTER INDEX pk_usage_records RENAME TO pk_usage_records_before")
    else:  # its triggers follow a table that is renamed, and their names are taken
        for trigger in ("usage_records_immutable", "usage_records_undeletable", "usage_records_summed"):
            op.execute(f"DROP TRIGGER {trigger}")


def _partition() -> None:
    """A month's partition is made by a function of the database: the jobs call it ahead of time."""
    op.execute("CREATE TABLE usage_records_default PARTITION OF usage_records DEFAULT")
    op.execute("""
        CREATE FUNCTION usage_records_partition(month date) RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE
            first date := date_trunc('month', month);
            name text := 'usage_records_' || to_char(first, 'YYYY_MM');
            bounds text[];
        BEGIN
            IF to_regclass(quote_ident(name)) IS NOT NULL THEN
                RETURN false;
            END IF;
            SELECT array_agg('req_' || lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') ORDER BY at)
            INTO bounds FROM unnest(ARRAY[first, (first + interval '1 month')::date]) AS at;
            EXECUTE format('CREATE TABLE %I (LIKE usage_records INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
            EXECUTE format('ALTER TABLE usage_records ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           name, bounds[1], bounds[2]);
            EXECUTE format('CREATE TRIGGER usage_records_not_truncated BEFORE TRUNCATE ON %I '
                           'FOR EACH STATEMENT EXECUTE FUNCTION usage_records_guard()', name);
            RETURN true;
        END $$
    """)
    op.execute("""
        SELECT usage_records_partition(month) FROM (
            SELECT DISTINCT date_trunc('month', "timestamp" AT TIME ZONE 'UTC')::date FROM usage_records_before
            WHERE request_id ~ '^req_0[0-9a-f]{31}$' AND "timestamp" BETWEEN '2020-01-01' AND now() + interval '1 month'
            UNION SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + ahead * interval '1 month')::date
            FROM generate_series(0, 2) AS ahead
        ) AS months(month)
    """)


def _chain() -> None:
    conn = op.get_bind()
    columns = [sa.column(name, kind) for name, kind, _ in KEPT]
    table = sa.table(
        "usage_records", sa.column("request_id"), sa.column("n"), sa.column("seq"), sa.column("hash"), *columns
    )
    heads = sa.table("usage_heads", sa.column("org_id"), sa.column("seq"), sa.column("hash"))
    store = (
        sa.update(table)
        .where(table.c.request_id == sa.bindparam("id"), table.c.n == 0)
        .values(hash=sa.bindparam("digest", type_=sa.LargeBinary()))
    )
    for org_id in conn.execute(sa.select(table.c.org_id).distinct().order_by(table.c.org_id)).scalars().all():
        seq, digest = 0, b""
        while True:
            query = sa.select(table).where(table.c.org_id == org_id, table.c.seq > seq)
            rows = conn.execute(query.order_by(table.c.seq).limit(PAGE)).mappings().all()
            if not rows:
                break
            digests = []
            for row in rows:
                digest = _hash(digest, dict(row))
                digests.append({"id": row["request_id"], "digest": digest})
            conn.execute(store, digests)
            seq = rows[-1]["seq"]
        conn.execute(sa.insert(heads).values(org_id=org_id, seq=seq, hash=digest))


def _hash(previous: bytes, row: dict[str, Any]) -> bytes:
    del row["hash"]
    at: datetime = row["timestamp"]
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    past = at - datetime(1970, 1, 1, tzinfo=UTC)
    row["timestamp"] = (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds
    row["cost_pusd"] = str(int(row["cost_pusd"]))
    fields = {name: row[name] for name in sorted(row) if row[name] is not None}
    return hashlib.sha256(DOMAIN + previous.hex().encode() + b"\n" + msgspec.json.encode(fields)).digest()


def _guard_on_postgresql() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION usage_records_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'usage records are immutable';
        END $$
    """)
    op.execute(
        "CREATE TRIGGER usage_records_immutable BEFORE UPDATE OR DELETE ON usage_records "
        "FOR EACH ROW EXECUTE FUNCTION usage_records_guard()"
    )
    for table in ("usage_records", "usage_records_default"):
        _guard_against_truncation(table)
    _sum_on_postgresql()


def _guard_against_truncation(table: str) -> None:
    op.execute(
        f"CREATE TRIGGER usage_records_not_truncated BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION usage_records_guard()"
    )


def _sum_on_postgresql() -> None:
    op.execute(
        "CREATE TRIGGER usage_records_summed AFTER INSERT ON usage_records REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION usage_records_sums()"
    )


def _guard_on_sqlite() -> None:
    for when, name in (("UPDATE", "immutable"), ("DELETE", "undeletable")):
        op.execute(
            f"CREATE TRIGGER usage_records_{name} BEFORE {when} ON usage_records "
            "BEGIN SELECT RAISE(ABORT, 'usage records are immutable'); END"
        )
    _sum_on_sqlite()


def _sum_on_sqlite() -> None:
    most = 9_000_000_000_000_000_000
    op.execute(f"""
        CREATE TRIGGER usage_records_summed AFTER INSERT ON usage_records BEGIN
        INSERT INTO monthly_spend (month, org_id, env_id, key_id, cost_pusd, tokens)
        SELECT substr(NEW.timestamp, 1, 7), NEW.org_id, NEW.env_id, NEW.key_id,
               MIN({most}, CAST(NEW.cost_pusd AS INTEGER)),
               CASE WHEN NEW.evidence = 'cached' THEN 0 ELSE NEW.total_tokens END
        WHERE true
        ON CONFLICT (month, org_id, env_id, key_id) DO UPDATE SET
        cost_pusd = MIN({most}, CAST(monthly_spend.cost_pusd AS INTEGER) + CAST(excluded.cost_pusd AS INTEGER)),
        tokens = tokens + excluded.tokens;
        END
    """)


def downgrade() -> None:
    """The log and its corrections are lost; the originals stay."""
    postgresql = op.get_context().dialect.name == "postgresql"
    op.drop_index("ix_usage_records_org_id_seq", "usage_records")
    _move_away(postgresql)
    op.create_table(
        "usage_records",
        sa.Column("request_id", sa.Text(), nullable=False),
        *(sa.Column(name, kind, nullable=null, server_default=ZERO.get(name)) for name, kind, null in KEPT),
        sa.Column("billed", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("request_id", name="pk_usage_records"),
    )
    names = ", ".join(f'"{name}"' for name in ("request_id", *(name for name, _, _ in KEPT)))
    op.execute(f"INSERT INTO usage_records ({names}) SELECT {names} FROM usage_records_before WHERE n = 0")  # noqa: S608
    op.create_index("ix_usage_records_org_id_timestamp", "usage_records", ["org_id", "timestamp"])
    op.create_index("ix_usage_records_key_id_timestamp", "usage_records", ["key_id", "timestamp"])
    op.drop_table("usage_records_before")
    op.drop_table("usage_heads")
    if not postgresql:
        guarded = ", ".join(f'"{name}"' for name in ("request_id", *(name for name, _, _ in KEPT)))
        for when, name in ((f"UPDATE OF {guarded}", "immutable"), ("DELETE", "undeletable")):
            op.execute(
                f"CREATE TRIGGER usage_records_{name} BEFORE {when} ON usage_records "
                "BEGIN SELECT RAISE(ABORT, 'usage records are immutable'); END"
            )
        _sum_on_sqlite()
        return
    op.execute("DROP FUNCTION usage_records_partition(date)")
    op.execute("""
        CREATE OR REPLACE FUNCTION usage_records_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - 'billed' = to_jsonb(OLD) - 'billed' THEN
                RETURN NEW;
            END IF;
            RAISE EXCEPTION 'usage records are immutable';
        END $$
    """)
    op.execute(
        "CREATE TRIGGER usage_records_immutable BEFORE UPDATE OR DELETE ON usage_records "
        "FOR EACH ROW EXECUTE FUNCTION usage_records_guard()"
    )
    _guard_against_truncation("usage_records")
    _sum_on_postgresql()
