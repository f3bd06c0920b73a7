"""All tables of the product, in one MetaData. PostgreSQL is the truth; SQLite carries the same tables embedded.

Invariant: the migrations in `store/migrations` produce exactly this (a test compares both on both databases).
Rows of `usage_records` never change, but for `billed`, and those of `audit_log` never at all; none is ever
deleted: triggers refuse it.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

from crosslogic.store.types import Document, Money, Sequence64, UtcDateTime

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


# The documents' tenants (architecture document §10.2).
orgs = Table(
    "orgs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # part of URLs: /{org}/{env}/{model}/v1
    Column("status", Text, nullable=False),
    Column("billing_plan", Text, nullable=False),
    Column("limits", Document, nullable=False),  # the ceilings that are set, by their names in `limits.model.Limits`
    Column("allowed_models", Document, nullable=False),  # list of names; empty: all
    Column("created_at", UtcDateTime, nullable=False),
    # Ceilings of each environment and each key, where they have none of their own.
    Column("env_limits", Document, nullable=False, server_default=text("'{}'")),
    Column("key_limits", Document, nullable=False, server_default=text("'{}'")),
    Column("region_preferences", Document, nullable=False, server_default=text("'[]'")),
    Column("billing_enabled", Boolean, nullable=False, server_default=true()),
)

# Architecture document §11.1.
environments = Table(
    "environments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("region", Text),
    Column("limits", Document, nullable=False),
    Column("allowed_models", Document, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("key_limits", Document, nullable=False, server_default=text("'{}'")),
    UniqueConstraint("org_id", "name"),
    UniqueConstraint("org_id", "id"),  # what api_keys refers to
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column(
        "limits", Document, nullable=False, server_default=text("'{}'")
    ),  # of requests that the user signs (JSON web tokens)
    UniqueConstraint("org_id", "email"),
)

# Who runs the platform; of no org.
operators = Table(
    "operators",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

# Plans that operators made or changed; those of the configuration and the shipped ones are not here.
plans = Table(
    "plans",
    metadata,
    Column("id", Text, primary_key=True),
    Column("terms", Document, nullable=False),  # `tenancy.model.Plan`
    Column("updated_at", UtcDateTime, nullable=False),
)

# Architecture document §9.2. The key itself is nowhere: its hash, and a prefix to recognise it by.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, nullable=False),
    Column("env_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("region", Text),
    Column("limits", Document, nullable=False),
    Column("created_by", Text, ForeignKey("users.id")),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("scoping", Document, nullable=False, server_default=text("'{}'")),  # `tenancy.model.Scoping`
    Column("replaced_by", Text),  # the key that a rotation put in its place
    Column("rotation_ref", Text),  # the Idempotency-Key of that rotation
    # Both columns together, so that no key can name another org's environment ("keys cannot cross org", §9.3).
    ForeignKeyConstraint(["org_id", "env_id"], ["environments.org_id", "environments.id"]),
    Index(None, "org_id", "env_id"),
)

# Architecture document §21.1; one column for each field of `fleet.model.Node`.
nodes = Table(
    "nodes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("endpoint_url", Text, nullable=False),
    Column("models", Document, nullable=False),  # list of names
    Column("status", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("cloud", Text, nullable=False),
    Column("spot", Boolean, nullable=False),
    Column("gpu_type", Text),
    Column("gpu_count", Integer, nullable=False),
    Column("vram_total_mb", BigInteger),
    Column("vram_free_mb", BigInteger),
    Column("throughput_tokens_per_s", Float(53)),
    Column("spot_price_usd_per_hour", Float(53)),
    Column("tailnet_ip", Text),
    Column("org_id", Text, ForeignKey("orgs.id")),
    Column("health_score", Float(53), nullable=False),
    Column("api_key", Text),
    Column("static", Boolean, nullable=False),
    Column("load", Document, nullable=False),  # `fleet.model.NodeLoad`
    Column("last_heartbeat_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
)

# Architecture document §34; one column for each field of `metering.model.UsageRecord`, and what it costs.
# No foreign keys: the ledger takes what was used, even of an org that is gone.
usage_records = Table(
    "usage_records",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("timestamp", UtcDateTime, nullable=False),  # arrival; exact to the microsecond
    Column("org_id", Text, nullable=False),
    Column("env_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("finish_reason", Text),
    Column("http_status", Integer, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("latency_ms", BigInteger, nullable=False),
    Column("first_token_ms", BigInteger),
    Column("client_request_id", Text),  # the caller's own X-Request-Id; not unique, so never a key
    Column("cost_pusd", Money, nullable=False, server_default=text("0")),
    Column("cost_microdollars", BigInteger, nullable=False, server_default=text("0")),
    Column("price_version", Text),  # null: no price was known, nothing was charged
    Column("billed", Boolean, nullable=False, server_default=false()),  # has been exported
    Index(None, "org_id", "timestamp"),
    Index(None, "key_id", "timestamp"),  # when a key was last used
)

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

settings = Table(
    "settings",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Document, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
