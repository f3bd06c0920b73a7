"""What runs models: nodes, their agents and trust, capacity that is promised, the model registry."""

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, Table, Text, text

from crosslogic.store.tables.metadata import metadata
from crosslogic.store.types import Document, Money, UtcDateTime

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
    Column("deployment_id", Text),  # what it runs, where somebody has deployed it
    Column("last_heartbeat_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("draining_since", UtcDateTime),
    Column("health", Document, nullable=False, server_default=text("'{}'")),  # `fleet.model.NodeHealth`
)

# What the job that judges nodes remembers of each: its usual latency, since when it ails (`fleet/health.py`).
node_health = Table(
    "node_health",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("history", Document, nullable=False),  # `fleet.health.History`
    Column("updated_at", UtcDateTime, nullable=False),
)

# Join tokens of nodes (`fleet/trust.py`). The text of a token is nowhere, only its hash.
node_join_tokens = Table(
    "node_join_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("org_id", Text, ForeignKey("orgs.id")),  # null: makes nodes of the platform
    Column("region", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Column("used_by", Text),  # the node
    Column("revoked_at", UtcDateTime),
)

# Every certificate that the CA gave to a node; one that is not here counts for nothing.
node_certificates = Table(
    "node_certificates",
    metadata,
    Column("serial", Text, primary_key=True),  # hex
    Column("node_id", Text, nullable=False),
    Column("org_id", Text),
    Column("region", Text, nullable=False),
    Column("issued_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Index(None, "node_id"),
)

# What a node's agent reports for people to look at, and what people want of it.
node_agents = Table(
    "node_agents",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("report", Document, nullable=False),
    Column("wanted_version", Text),
    Column("updated_at", UtcDateTime, nullable=False),
)

# How far each engine's own counter of generated tokens stood when its agent last said so.
engine_counters = Table(
    "engine_counters",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("generated_tokens", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

# What those counters grew by, hour by hour: the witness that the ledger is held against (billing reference §4).
node_witness = Table(
    "node_witness",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("generated_tokens", BigInteger, nullable=False),
)

# Architecture document §17, §35.5; one column for each field of `capacity.model.Reservation`.
capacity_reservations = Table(
    "capacity_reservations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("units", BigInteger, nullable=False),  # tokens/s
    Column("starts_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("region", Text),  # null: any
    Column("nodes", Document, nullable=False),  # ids of those that are dedicated
    Column("shared_fallback", Boolean, nullable=False),
    Column("price_per_month_pusd", Money),
    Column("cancelled_at", UtcDateTime),
    Column("creation_ref", Text, unique=True),  # the Idempotency-Key that it was made under
    Column("creation_digest", Text),  # of what was asked then
    Index(None, "org_id"),
    Index(None, "expires_at"),
)

# Interface document, `ResourceAllocator`: what each org may count on, whether it uses it or not.
resource_reserves = Table(
    "resource_reserves",
    metadata,
    Column("id", Text, ForeignKey("orgs.id"), primary_key=True),  # the org
    Column("gpu_memory_mb", BigInteger, nullable=False),
    Column("cpu_cores", Float(53), nullable=False),
    Column("concurrency", BigInteger, nullable=False),
    Column("expires_at", UtcDateTime),
)

# And what is taken, each until it is released or expires.
resource_allocations = Table(
    "resource_allocations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("gpu_memory_mb", BigInteger, nullable=False),
    Column("cpu_cores", Float(53), nullable=False),
    Column("concurrency", BigInteger, nullable=False),
    Column("allocated_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index(None, "org_id"),
    Index(None, "expires_at"),
)

# The model registry (interface document, `ModelInfo`, `ModelDeployment`); `orchestration/model.py` says what they hold.
registered_models = Table(
    "registered_models",
    metadata,
    Column("id", Text, primary_key=True),  # the name that callers use
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("card", Document, nullable=False),  # all that is known of the version
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

deployments = Table(
    "deployments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model_id", Text, ForeignKey("registered_models.id"), nullable=False),
    Column("version", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("share", Integer, nullable=False),  # thousandths of the model's requests
    Column("config", Document, nullable=False),
    Column("reason", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index(None, "model_id"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model_id", Text, ForeignKey("registered_models.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("old", Text, nullable=False),  # a deployment; empty: the nodes of none
    Column("new", Text, ForeignKey("deployments.id"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("step_since", UtcDateTime, nullable=False),
    Column("rules", Document, nullable=False),
    Column("reason", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "model_id"),
)
