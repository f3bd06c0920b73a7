"""What keeps the processes together: change feed, audit log, leases, settings."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, Table, Text

from crosslogic.store.tables.metadata import metadata
from crosslogic.store.types import Document, Sequence64, UtcDateTime

# The change feed (`store/changes.py`): what every process polls to learn of a change within a second.
changes = Table(
    "changes",
    metadata,
    Column("seq", Sequence64, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("entity_id", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    # Without it SQLite would hand out again the numbers of pruned rows, and readers would miss changes.
    sqlite_autoincrement=True,
)

# Every management action, in a chain of hashes (`tenancy/audit.py`). Only ever added to.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", Sequence64, primary_key=True, autoincrement=False),  # 1, 2, 3, … without a hole
    Column("at", UtcDateTime, nullable=False),
    Column("org_id", Text),  # null: it concerns no org, or all
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("entity_id", Text, nullable=False),
    # JSON as text: the hash is over these very characters.
    Column("before", Text),
    Column("after", Text),
    Column("request_id", Text),
    Column("hash", LargeBinary, nullable=False),
    Index(None, "org_id", "seq"),
)

# One row: the end of the chain. Whoever appends locks it, so that no two append the same number.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# Who does what only one process should do (`coordination/sql.py`). Seconds since 1970 by the database's own clock.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),  # rises with each change of holder
    Column("expires_at_s", Float, nullable=False),
)

# The processes of the cloud that run, or ran a short while ago.
processes = Table(
    "processes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("started_at_s", Float, nullable=False),
    Column("seen_at_s", Float, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Document, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
