"""The planner: benchmarks by exact traffic, conversations, specifications, scenarios, and what was imported.

Invariant: `digest` names a point of a run, so that an import may be repeated without rows twice.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Float,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from crosslogic.store.tables.metadata import metadata
from crosslogic.store.types import Document, UtcDateTime

benchmarks = Table(
    "benchmarks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("model_hf_repo", Text, nullable=False),
    Column("hardware", Text, nullable=False),  # id of the GPU catalogue
    Column("hardware_count", Integer, nullable=False),
    Column("precision", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("backend_version", Text),
    Column("prompt_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    # Milliseconds; null where it was not measured.
    Column("ttft_p95", Float),
    Column("itl_p95", Float),
    Column("e2e_p95", Float),
    Column("ttft_mean", Float),
    Column("itl_mean", Float),
    Column("e2e_mean", Float),
    Column("requests_per_second", Float),  # achieved
    Column("offered_per_second", Float),
    Column("concurrency", Float),
    Column("mean_input_tokens", Float),
    Column("mean_output_tokens", Float),
    Column("requests", Integer),
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("source", Text, nullable=False),
    Column("measured_at", UtcDateTime),
    Column("imported_at", UtcDateTime, nullable=False),
    Column("stale", Boolean, nullable=False, server_default=false()),
    Index("ix_benchmarks_traffic", "model_hf_repo", "hardware", "hardware_count", "prompt_tokens", "output_tokens"),
)

# A specification with changes and what came out, named by who keeps it.
compass_scenarios = Table(
    "compass_scenarios",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False),  # who made it: a user or a key
    Column("shared", Boolean, nullable=False, server_default=false()),  # with everybody of the org
    Column("specification", Document, nullable=False),  # `compass.specification.model.Specification`
    Column("changes", Document, nullable=False),
    Column("outcome", Document, nullable=False),  # what was recommended then
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("org_id", "owner", "name", name="uq_compass_scenarios_org_id_owner_name"),
)

compass_conversations = Table(
    "compass_conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("title", Text, nullable=False),
    Column("turns", Integer, nullable=False),  # how many; also what a writer must have seen to add one
    Column("specification_id", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index(None, "org_id", "id"),
)

compass_turns = Table(
    "compass_turns",
    metadata,
    Column("conversation_id", Text, ForeignKey("compass_conversations.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("asked", Text),  # the field that an assistant's question is about
    Column("extractor", Text),  # who understood the turn before
    Column("at", UtcDateTime, nullable=False),
)

compass_specifications = Table(
    "compass_specifications",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("specification", Document, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index(None, "org_id", "id"),
)

# Every state that a specification ever had. Only added to.
compass_specification_revisions = Table(
    "compass_specification_revisions",
    metadata,
    Column("specification_id", Text, ForeignKey("compass_specifications.id"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),  # created, edited, conversation
    Column("changes", Document, nullable=False),
    Column("specification", Document, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

# What was recommended for a revision of a specification. Only added to, until the specification goes.
compass_recommendations = Table(
    "compass_recommendations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("specification_id", Text, ForeignKey("compass_specifications.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("best", Text),  # id of the first option; null: nothing met all targets
    Column("per_month_pusd", BigInteger),
    Column("outcome", Document, nullable=False),  # the recommendation, with a few options and rejections
    Column("actor", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index(None, "specification_id", "id"),
)

catalog_models = Table(
    "catalog_models",
    metadata,
    Column("id", Text, primary_key=True),
    Column("card", Document, nullable=False),
    Column("imported_at", UtcDateTime, nullable=False),
)

catalog_prices = Table(
    "catalog_prices",
    metadata,
    Column("cloud", Text, primary_key=True),
    Column("region", Text, primary_key=True),
    Column("zone", Text, primary_key=True),  # empty: of the whole region
    Column("instance_type", Text, primary_key=True),
    Column("gpu", Text, primary_key=True),
    Column("gpu_count", Integer, primary_key=True, autoincrement=False),
    Column("market", Text, primary_key=True),
    Column("per_hour_pusd", BigInteger, nullable=False),
    Column("as_of", Date),
    Column("source", Text, nullable=False),
    Column("doubts", Document, nullable=False),
    Column("imported_at", UtcDateTime, nullable=False),
)

# Deployments that were planned: the latest revision, and the one that the cluster was last asked for.
compass_deployments = Table(
    "compass_deployments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("applied_revision", Integer),
    Column("message", Text),  # why it is in this state
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("org_id", "name", name="uq_compass_deployments_org_id_name"),
)

# Each plan that a deployment had; rows are only ever added, and `applied_at` set once.
compass_revisions = Table(
    "compass_revisions",
    metadata,
    Column("deployment_id", Text, ForeignKey("compass_deployments.id"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("plan", Document, nullable=False),
    Column("surroundings", Document, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("applied_at", UtcDateTime),
)

# What a window of a deployment showed beside its forecast; a window is judged once.
compass_outcomes = Table(
    "compass_outcomes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("deployment_id", Text, ForeignKey("compass_deployments.id"), nullable=False),
    Column("configuration", Text, nullable=False),
    Column("window_start", UtcDateTime, nullable=False),
    Column("window_end", UtcDateTime, nullable=False),
    Column("judged", Document, nullable=False),
    Column("drift", Boolean, nullable=False, server_default=false()),  # whether it was out for windows in a row
    UniqueConstraint("deployment_id", "window_start", name="uq_compass_outcomes_deployment_id_window_start"),
)

# What outcomes taught an org of a configuration.
compass_biases = Table(
    "compass_biases",
    metadata,
    Column("org_id", Text, ForeignKey("orgs.id"), primary_key=True),
    Column("configuration", Text, primary_key=True),
    Column("bias", Document, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
