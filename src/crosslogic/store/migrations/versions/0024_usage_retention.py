"""Where each org's log begins, once its oldest months are dropped; what was dropped; what came too late for it; how
far each log is copied to another store; and what runs now in each gateway."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)
DROPPED = "SELECT 1 FROM usage_starts AS s WHERE s.org_id = OLD.org_id AND s.seq >= OLD.seq"


def upgrade() -> None:
    postgresql = op.get_context().dialect.name == "postgresql"
    op.create_table(
        "usage_starts",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("cutoff", TIME, nullable=False),
        sa.Column("total_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_pusd", MONEY, nullable=False),
        sa.Column("rating_state", sa.Text()),
        sa.PrimaryKeyConstraint("org_id", name="pk_usage_starts"),
    )
    op.create_table(
        "usage_drops",
        sa.Column("cutoff", TIME, nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("org_count", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", TIME, nullable=False),
        sa.Column("removed_at", TIME),
        sa.PrimaryKeyConstraint("cutoff", name="pk_usage_drops"),
    )
    op.create_table(
        "usage_too_late",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_usage_too_late"),
    )
    op.create_table(
        "usage_copies",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", name="pk_usage_copies"),
    )
    op.create_table(
        "usage_live",
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("at_s", sa.Float(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("session", name="pk_usage_live"),
    )
    (_guard_on_postgresql if postgresql else _guard_on_sqlite)()


def _guard_on_postgresql() -> None:
    """Rows before the beginning of their log may be removed, all others stay as they are; beginnings only move on."""
    op.execute(f"""
        CREATE OR REPLACE FUNCTION usage_records_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' THEN
                IF EXISTS ({DROPPED}) THEN
                    RETURN OLD;
                END IF;
            END IF;
            RAISE EXCEPTION 'usage records are immutable';
        END $$
    """)
    op.execute("""
        CREATE FUNCTION usage_starts_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' THEN
                IF NEW.org_id = OLD.org_id AND NEW.seq > OLD.seq THEN
                    RETURN NEW;
                END IF;
            END IF;
            RAISE EXCEPTION 'the beginning of a log only moves on';
        END $$
    """)
    op.execute(
        "CREATE TRIGGER usage_starts_move_on BEFORE UPDATE OR DELETE ON usage_starts "
        "FOR EACH ROW EXECUTE FUNCTION usage_starts_guard()"
    )


def _guard_on_sqlite() -> None:
    op.execute("DROP TRIGGER usage_records_undeletable")
    op.execute(
        "CREATE TRIGGER usage_records_undeletable BEFORE DELETE ON usage_records "
        f"WHEN NOT EXISTS ({DROPPED}) "
        "BEGIN SELECT RAISE(ABORT, 'usage records are immutable'); END"
    )
    message = "SELECT RAISE(ABORT, 'the beginning of a log only moves on')"
    op.execute(
        "CREATE TRIGGER usage_starts_move_on BEFORE UPDATE ON usage_starts "
        f"WHEN NEW.org_id != OLD.org_id OR NEW.seq <= OLD.seq BEGIN {message}; END"
    )
    op.execute(f"CREATE TRIGGER usage_starts_stay BEFORE DELETE ON usage_starts BEGIN {message}; END")


def downgrade() -> None:
    """Logs that were dropped from do not verify any more by the version before."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("""
            CREATE OR REPLACE FUNCTION usage_records_guard() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'usage records are immutable';
            END $$
        """)
    else:
        op.execute("DROP TRIGGER usage_records_undeletable")
        op.execute(
            "CREATE TRIGGER usage_records_undeletable BEFORE DELETE ON usage_records "
            "BEGIN SELECT RAISE(ABORT, 'usage records are immutable'); END"
        )
    for table in ("usage_live", "usage_copies", "usage_too_late", "usage_drops", "usage_starts"):
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION usage_starts_guard()")
