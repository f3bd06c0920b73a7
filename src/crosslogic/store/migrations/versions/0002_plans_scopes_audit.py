"""Plans, operators, what keys are scoped to, rotation with a grace, and the audit log."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
NOTHING = sa.text("'{}'")
EMPTY_LIST = sa.text("'[]'")


def _new_columns() -> dict[str, tuple["sa.Column[Any]", ...]]:
    """Each has a default or may be null, so that processes of the version before keep writing rows."""
    return {
        "orgs": (
            sa.Column("env_limits", DOCUMENT, nullable=False, server_default=NOTHING),
            sa.Column("key_limits", DOCUMENT, nullable=False, server_default=NOTHING),
            sa.Column("region_preferences", DOCUMENT, nullable=False, server_default=EMPTY_LIST),
            sa.Column("billing_enabled", sa.Boolean(), nullable=False, server_default=sa.true()),
        ),
        "environments": (sa.Column("key_limits", DOCUMENT, nullable=False, server_default=NOTHING),),
        "users": (sa.Column("limits", DOCUMENT, nullable=False, server_default=NOTHING),),
        "api_keys": (
            sa.Column("scoping", DOCUMENT, nullable=False, server_default=NOTHING),
            sa.Column("replaced_by", sa.Text()),
            sa.Column("rotation_ref", sa.Text()),
        ),
    }


def upgrade() -> None:
    for table, columns in _new_columns().items():
        for column in columns:
            op.add_column(table, column)
    op.create_table(
        "plans",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("terms", DOCUMENT, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_plans"),
    )
    op.create_table(
        "operators",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_operators"),
        sa.UniqueConstraint("key_hash", name="uq_operators_key_hash"),
        sa.UniqueConstraint("name", name="uq_operators_name"),
    )
    _audit_log()
    guard = _guard_on_postgresql if op.get_context().dialect.name == "postgresql" else _guard_on_sqlite
    guard()


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", SEQUENCE, nullable=False, autoincrement=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("org_id", sa.Text()),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_org_id_seq", "audit_log", ["org_id", "seq"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
    op.bulk_insert(head, [{"id": 1, "seq": 0, "hash": b""}])


def _guard_on_postgresql() -> None:
    op.execute("""
        CREATE FUNCTION audit_log_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the audit log is only ever added to';
        END $$
    """)
    op.execute(
        "CREATE TRIGGER audit_log_immutable BEFORE UPDATE OR DELETE ON audit_log "
        "FOR EACH ROW EXECUTE FUNCTION audit_log_guard()"
    )
    op.execute(
        "CREATE TRIGGER audit_log_not_truncated BEFORE TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_guard()"
    )


def _guard_on_sqlite() -> None:
    for name, event in (("immutable", "UPDATE"), ("undeletable", "DELETE")):
        op.execute(
            f"CREATE TRIGGER audit_log_{name} BEFORE {event} ON audit_log "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END"
        )


def downgrade() -> None:
    for table in ("audit_head", "audit_log", "operators", "plans"):
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_guard()")
    for table, columns in _new_columns().items():
        for column in columns:
            op.drop_column(table, column.name)
