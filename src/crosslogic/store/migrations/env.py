"""Run by Alembic: migrates on the connection, and in the transaction, that `store/migrate.py` hands over."""

from alembic import context

from crosslogic.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter a column in place; Alembic then copies the table.
    render_as_batch=True,
    compare_type=True,
    compare_server_default=False,
)
context.run_migrations()
