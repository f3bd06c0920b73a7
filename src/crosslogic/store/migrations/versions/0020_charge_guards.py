"""Guards of charges, fees and credits that cost nothing where only what is set once is set.

Before, a function of PostgreSQL compared whole rows, each as JSON, for every row that an invoice claimed. A trigger of
columns asks nothing while none of its columns is set; what is set once is looked at by a condition, without a call.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# As in 0011: rows that are only ever added, and the columns of theirs that are set once.
SET_ONCE = {"charges": ("invoice_id",), "fees": ("invoice_id",), "credit_grants": ("voided_at", "void_seq")}


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return  # SQLite's triggers are of this kind already
    for table, set_once in SET_ONCE.items():
        columns = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)]
        guarded = ", ".join(f'"{name}"' for name in columns if name not in set_once)
        op.execute(f"""
            CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION '{table} are immutable';
            END $$
        """)
        op.execute(f"DROP TRIGGER {table}_immutable ON {table}")
        op.execute(f"DROP TRIGGER {table}_not_truncated ON {table}")
        _refuse(table, "immutable", f"UPDATE OF {guarded}")
        _refuse(table, "undeletable", "DELETE")
        for column in set_once:
            changed = f"OLD.{column} IS NOT NULL AND NEW.{column} IS DISTINCT FROM OLD.{column}"
            _refuse(table, f"{column}_once", f"UPDATE OF {column}", f"WHEN ({changed})")
        op.execute(
            f"CREATE TRIGGER {table}_not_truncated BEFORE TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()"
        )
        op.execute(f"DROP FUNCTION {table}_guard()")


def _refuse(table: str, name: str, what: str, when: str = "") -> None:
    op.execute(
        f"CREATE TRIGGER {table}_{name} BEFORE {what} ON {table} FOR EACH ROW {when} EXECUTE FUNCTION {table}_refuse()"
    )


def downgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    for table, set_once in SET_ONCE.items():
        free = "".join(f" - '{column}'" for column in set_once)
        unset = " AND ".join(f"(OLD.{c} IS NULL OR NEW.{c} = OLD.{c})" for c in set_once)
        op.execute(f"""
            CREATE FUNCTION {table}_guard() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP = 'UPDATE' AND to_jsonb(NEW){free} = to_jsonb(OLD){free} AND {unset} THEN
                    RETURN NEW;
                END IF;
                RAISE EXCEPTION '{table} are immutable';
            END $$
        """)
        for name in ("immutable", "undeletable", "not_truncated", *(f"{column}_once" for column in set_once)):
            op.execute(f"DROP TRIGGER {table}_{name} ON {table}")
        op.execute(
            f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION {table}_guard()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_not_truncated BEFORE TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_guard()"
        )
        op.execute(f"DROP FUNCTION {table}_refuse()")
