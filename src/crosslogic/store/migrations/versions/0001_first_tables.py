"""Orgs, environments, users, keys, nodes, the usage ledger, the change feed, settings."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out instead of imported from store/types.py: a migration says what was, whatever comes later.
DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _tenancy()
    _nodes()
    _usage_records()
    _changes_and_settings()
    if op.get_context().dialect.name == "postgresql":
        _guard_ledger_on_postgresql()
    else:
        _guard_ledger_on_sqlite()


def _tenancy() -> None:
    op.create_table(
        "orgs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("billing_plan", sa.Text(), nullable=False),
        sa.Column("limits", DOCUMENT, nullable=False),
        sa.Column("allowed_models", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_orgs"),
        sa.UniqueConstraint("name", name="uq_orgs_name"),
    )
    op.create_table(
        "environments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("region", sa.Text()),
        sa.Column("limits", DOCUMENT, nullable=False),
        sa.Column("allowed_models", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_environments"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_environments_org_id"),
        sa.UniqueConstraint("org_id", "name", name="uq_environments_org_id_name"),
        sa.UniqueConstraint("org_id", "id", name="uq_environments_org_id_id"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_users_org_id"),
        sa.UniqueConstraint("org_id", "email", name="uq_users_org_id_email"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("env_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("region", sa.Text()),
        sa.Column("limits", DOCUMENT, nullable=False),
        sa.Column("created_by", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name="fk_api_keys_created_by"),
        sa.ForeignKeyConstraint(
            ["org_id", "env_id"],
            ["environments.org_id", "environments.id"],
            name="fk_api_keys_org_id_env_id",
        ),
    )
    op.create_index("ix_api_keys_org_id_env_id", "api_keys", ["org_id", "env_id"])


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("endpoint_url", sa.Text(), nullable=False),
        sa.Column("models", DOCUMENT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("cloud", sa.Text(), nullable=False),
        sa.Column("spot", sa.Boolean(), nullable=False),
        sa.Column("gpu_type", sa.Text()),
        sa.Column("gpu_count", sa.Integer(), nullable=False),
        sa.Column("vram_total_mb", sa.BigInteger()),
        sa.Column("vram_free_mb", sa.BigInteger()),
        sa.Column("throughput_tokens_per_s", sa.Float(53)),
        sa.Column("spot_price_usd_per_hour", sa.Float(53)),
        sa.Column("tailnet_ip", sa.Text()),
        sa.Column("org_id", sa.Text()),
        sa.Column("health_score", sa.Float(53), nullable=False),
        sa.Column("api_key", sa.Text()),
        sa.Column("static", sa.Boolean(), nullable=False),
        sa.Column("load", DOCUMENT, nullable=False),
        sa.Column("last_heartbeat_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nodes"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_nodes_org_id"),
    )


def _usage_records() -> None:
    op.create_table(
        "usage_records",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("timestamp", TIME, nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("env_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("total_tokens", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("finish_reason", sa.Text()),
        sa.Column("http_status", sa.Integer(), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("latency_ms", sa.BigInteger(), nullable=False),
        sa.Column("first_token_ms", sa.BigInteger()),
        sa.Column("client_request_id", sa.Text()),
        sa.Column("cost_pusd", MONEY, nullable=False, server_default=sa.text("0")),
        sa.Column("cost_microdollars", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("price_version", sa.Text()),
        sa.Column("billed", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("request_id", name="pk_usage_records"),
    )
    op.create_index("ix_usage_records_org_id_timestamp", "usage_records", ["org_id", "timestamp"])
    op.create_index("ix_usage_records_key_id_timestamp", "usage_records", ["key_id", "timestamp"])


def _changes_and_settings() -> None:
    op.create_table(
        "changes",
        sa.Column("seq", SEQUENCE, nullable=False, autoincrement=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_changes"),
        sqlite_autoincrement=True,
    )
    # A first row, so that every reader's position is a row that is there (store/changes.py).
    op.execute("INSERT INTO changes (kind, entity_id, at) VALUES ('schema', '0001', CURRENT_TIMESTAMP)")
    op.create_table(
        "settings",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", DOCUMENT, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )


def _guard_ledger_on_postgresql() -> None:
    """Compares whole rows without `billed`, so that columns added later are guarded as well."""
    op.execute("""
        CREATE FUNCTION usage_records_guard() RETURNS trigger LANGUAGE plpgsql AS $$
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
    op.execute(
        "CREATE TRIGGER usage_records_not_truncated BEFORE TRUNCATE ON usage_records "
        "FOR EACH STATEMENT EXECUTE FUNCTION usage_records_guard()"
    )


def _guard_ledger_on_sqlite() -> None:
    """Names every column but `billed`: a migration that adds one re-creates the trigger (a test checks it)."""
    columns = [c["name"] for c in sa.inspect(op.get_bind()).get_columns("usage_records")]
    guarded = ", ".join(f'"{name}"' for name in columns if name != "billed")
    op.execute(
        f"CREATE TRIGGER usage_records_immutable BEFORE UPDATE OF {guarded} ON usage_records "
        "BEGIN SELECT RAISE(ABORT, 'usage records are immutable'); END"
    )
    op.execute(
        "CREATE TRIGGER usage_records_undeletable BEFORE DELETE ON usage_records "
        "BEGIN SELECT RAISE(ABORT, 'usage records are immutable'); END"
    )


def downgrade() -> None:
    for table in ("settings", "changes", "usage_records", "nodes", "api_keys", "users", "environments", "orgs"):
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION usage_records_guard()")
