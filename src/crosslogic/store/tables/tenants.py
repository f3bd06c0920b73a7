"""What tenants are: orgs, environments, users, plans, keys; and operators, of no org."""

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

from crosslogic.store.tables.metadata import metadata
from crosslogic.store.types import Document, UtcDateTime

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
    Column("data_residency", Boolean, nullable=False, server_default=false()),
    Column("cache", Document, nullable=False, server_default=text("'{}'")),  # what is set of `cache.model.CacheChoice`
    Column("at_cap", Text, nullable=False, server_default=text("'reject'")),  # `tenancy.model.AtCap`
    Column("suspended_for", Text),  # `tenancy.model.SuspendedFor`: by the system, which takes it up again; else null
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
    Column("cache", Document, nullable=False, server_default=text("'{}'")),
    Column("at_cap", Text, nullable=False, server_default=text("'reject'")),
    Column("data_residency", Boolean, nullable=False, server_default=false()),
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
