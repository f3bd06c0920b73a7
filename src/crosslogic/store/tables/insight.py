"""What people are told unasked: notices, where they go and what became of them; what is unusual; what nodes cost."""

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, Table, Text, UniqueConstraint

from crosslogic.store.tables.metadata import metadata
from crosslogic.store.types import Document, Money, UtcDateTime

# Where an org, or the platform, wants to be told.
notification_channels = Table(
    "notification_channels",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id")),  # null: the operators'
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),  # an address or URL
    Column("secret", Text),  # that signs webhooks
    Column("notices", Document, nullable=False),  # kinds of notices; empty: all
    Column("status", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "org_id"),
)

# What there is to tell. `once` says what it is about: for the same there is never a second notice.
notices = Table(
    "notices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text),  # null: it is for the operators
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("once", Text, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("facts", Document, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index(None, "org_id", "id"),
)

# A notice on its way to a channel.
notice_deliveries = Table(
    "notice_deliveries",
    metadata,
    Column("notice_id", Text, ForeignKey("notices.id"), primary_key=True),
    Column("channel_id", Text, ForeignKey("notification_channels.id"), primary_key=True),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),  # of the next attempt
    Column("sent_at", UtcDateTime),
    Column("problem", Text),  # of the last attempt that failed
    Index(None, "status", "due_at"),
)

# Ten minutes of a model in a region; `insight.anomalies.model.Window`.
service_windows = Table(
    "service_windows",
    metadata,
    Column("at", UtcDateTime, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("region", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("answered", BigInteger, nullable=False),
    Column("odd", BigInteger, nullable=False),
    Column("first_token_ms", Float(53)),
    Column("token_ms", Float(53)),
)

# What was unusual, from when to when; `insight.anomalies.model.Anomaly`.
anomalies = Table(
    "anomalies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("suggestion", Text, nullable=False),
    Column("facts", Document, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),  # null: it goes on
    UniqueConstraint("kind", "model", "region", "started_at"),
)

# Until when the hours of each node are counted.
node_clocks = Table(
    "node_clocks",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("counted_at", UtcDateTime, nullable=False),
)

# How long each node was up in each hour, and at what price; `insight.finops.model.NodeHour`.
node_hours = Table(
    "node_hours",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("up_s", Float(53), nullable=False),
    Column("usd_per_hour", Float(53)),
    Column("spot", Boolean, nullable=False),
    Column("gpu_type", Text),
    Column("gpu_count", Integer, nullable=False),
    Column("region", Text, nullable=False),
    Index(None, "hour"),
)

# What became of each of these hours; `insight.finops.model.Attribution`.
node_margins = Table(
    "node_margins",
    metadata,
    Column("hour", UtcDateTime, primary_key=True),
    Column("node_id", Text, primary_key=True),
    Column("org_id", Text, primary_key=True),  # empty: nobody used it
    Column("model", Text, primary_key=True),
    Column("region", Text, nullable=False),
    Column("spot", Boolean, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("revenue_pusd", Money, nullable=False),
    Column("cost_pusd", Money, nullable=False),
    Column("gpu_s", Float(53), nullable=False),
)
