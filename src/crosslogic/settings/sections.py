"""Settings of what this version does: edge, stores, keys, limits, nodes, scheduling, time, telemetry."""

from typing import Annotated, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from crosslogic.fleet.model import BackendKind
from crosslogic.settings.values import (
    Bytes,
    Count,
    Directory,
    Milliseconds,
    Port,
    Positive,
    Seconds,
    Section,
    Texts,
    Truth,
    list_as_tuple,
)
from crosslogic.tenancy.claims import ClaimRules
from crosslogic.tenancy.model import Role
from crosslogic.tenancy.networks import compiled

Strategy = Annotated[
    Literal[
        "least_loaded",
        "round_robin",
        "weighted_health",
        "weighted_latency",
        "cost_optimised",
        "prefix_affinity",
        "random",
    ],
    # the interface document writes hyphens
    BeforeValidator(lambda value: value.replace("-", "_") if isinstance(value, str) else value),
]


HOME_REGION = "local"  # of gateways and nodes that say nothing of where they stand


class ServerSettings(Section):
    """The edge that callers talk to."""

    host: str = Field(default="0.0.0.0", description="Address to listen on.")  # noqa: S104 - a server is there to be reached
    port: Port = Field(default=8080, description="Port to listen on.")
    region: str | None = Field(
        default=None,
        description="Where this gateway stands ([regions](regions.md)): serves what names no region. Absent: any node.",
    )
    max_body_bytes: Bytes = Field(default=10 * 2**20, description="Larger request bodies get 413.")
    header_timeout_s: Seconds = Field(default=10.0, description="A request whose head and body take longer gets 408.")
    idle_timeout_s: Seconds = Field(default=75.0, description="An idle keep-alive connection is closed after this.")
    drain_s: Seconds = Field(default=30.0, description="On stop, running answers get this long to finish.")
    trusted_proxies: Texts = Field(
        default=(), description="Networks (CIDR) whose `X-Forwarded-For` says truly where a request came from."
    )

    tunnel_port: Port | None = Field(
        default=None, description="Port that agents dial, of nodes that nobody can connect to; absent: no tunnels."
    )
    tunnel_listen: str = Field(default="0.0.0.0", description="Address that `tunnel_port` listens on.")  # noqa: S104
    tunnel_certificate_file: Directory | None = Field(
        default=None,
        description="Key, certificate and CA (PEM) for tunnels, of `crosslogic nodes tunnel-certificate`; absent: "
        "signed with the CA of control, where this machine has it.",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        compiled(value)  # raises ValueError, which names what is none
        return value

    def home_region(self) -> str:
        """Whose limits hold for what names no region."""
        return self.region or HOME_REGION


class ControlSettings(Section):
    """The management API of `crosslogic control`."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Port = Field(default=8081, description="Port to listen on.")
    agent_port: Port | None = Field(
        default=None, description="Port for node agents (gRPC with mutual TLS); absent: no agent is let in."
    )
    agent_listen: str = Field(default="0.0.0.0", description="Address that `agent_port` listens on.")  # noqa: S104
    agent_host: str | None = Field(
        default=None, description="Host that agents are told; absent: the one they joined through."
    )
    ca_certificate_file: Directory | None = Field(
        default=None, description="Certificate (PEM) of a CA of your own; absent: one is made in `data_dir`/ca."
    )
    ca_key_file: Directory | None = Field(default=None, description="Its key (PEM, without password).")
    ca_key: SecretStr | None = Field(default=None, description="The key itself, instead of `ca_key_file`.")
    certificate_lifetime_s: Seconds = Field(
        default=7 * 86_400.0, description="How long a node's certificate is good; agents renew in time."
    )


class DatabaseSettings(Section):
    """PostgreSQL in production; without any of these, an SQLite file in `data_dir`."""

    url: SecretStr | None = Field(default=None, description="`postgresql://user:password@host:5432/name`.")
    host: str | None = Field(default=None, description="Instead of `url`: its host.")
    port: Port = Field(default=5432, description="Instead of `url`: its port.")
    user: str = Field(default="crosslogic", description="Instead of `url`: its user.")
    password: SecretStr | None = Field(default=None, description="Used where `url` carries no password, too.")
    name: str = Field(default="crosslogic_iaas", description="Instead of `url`: the database.")
    pool_size: Positive = Field(default=5, description="Connections kept by each process.")

    def address(self) -> str | None:
        """The URL with its password (do not show it), or None when no database server is configured."""
        password = self.password.get_secret_value() if self.password else None
        if self.url is not None:
            return with_password(self.url.get_secret_value(), password)
        if self.host is None:
            return None
        return with_password(
            f"postgresql://{quote(self.user, safe='')}@{_bracketed(self.host)}:{self.port}/{self.name}", password
        )


class RedisSettings(Section):
    """Counters shared by gateway workers; without it each process counts alone."""

    url: SecretStr | None = Field(default=None, description="`redis://:password@host:6379/0`, or `rediss://` for TLS.")
    host: str | None = Field(default=None, description="Instead of `url`: its host.")
    port: Port = Field(default=6379, description="Instead of `url`: its port.")
    password: SecretStr | None = Field(default=None, description="Used where `url` carries no password, too.")
    db: Count = Field(default=0, description="Instead of `url`: the database number.")
    timeout_ms: Milliseconds = Field(default=50.0, description="After this a request is limited by this process alone.")

    def address(self) -> str | None:
        """The URL with its password (do not show it), or None when no Redis is configured."""
        password = self.password.get_secret_value() if self.password else None
        if self.url is not None:
            return with_password(self.url.get_secret_value(), password)
        if self.host is None:
            return None
        return with_password(f"redis://{_bracketed(self.host)}:{self.port}/{self.db}", password)


class JwtSettings(Section):
    """JSON web tokens of an identity provider, accepted besides API keys."""

    issuer: str | None = Field(default=None, description="The only `iss` that counts; needed with `jwks_url`.")
    audience: Texts = Field(default=(), description="One of these must be in `aud`; needed with `jwks_url`.")
    jwks_url: str | None = Field(default=None, description="The issuer's public keys, for RS256 and ES256; https.")
    algorithms: Annotated[tuple[Literal["HS256", "RS256", "ES256"], ...], list_as_tuple] = Field(
        default=(), description="Only these; absent: all that `secret` and `jwks_url` make possible."
    )
    org_claim: str = Field(default="org", description="Claim that names the organisation, by id or name.")
    env_claim: str = Field(default="env", description="Claim that names the environment, by id or name.")
    role_claim: str = Field(default="role", description="Claim with a role, or a list of which the strongest counts.")
    email_claim: str = Field(default="email", description="Claim by which a user of the organisation is recognised.")
    default_env: str | None = Field(default=None, description="Environment of tokens that name none.")
    default_role: Role = Field(default=Role.DEVELOPER, strict=False, description="Role where nothing says one.")
    leeway_s: Seconds = Field(default=30.0, description="How far the issuer's clock may be off.")
    jwks_max_age_s: Seconds = Field(default=300.0, description="How often the issuer's keys are read anew.")
    jwks_timeout_s: Seconds = Field(default=3.0, description="How long the issuer may take to answer.")

    @model_validator(mode="after")
    def _keys_need_an_issuer(self) -> "JwtSettings":
        if self.jwks_url is not None and (self.issuer is None or not self.audience):
            raise ValueError("jwks_url needs issuer and audience, or tokens that were made for others would count")
        return self

    def rules(self) -> ClaimRules:
        return ClaimRules(
            issuer=self.issuer,
            audiences=self.audience,
            org_claim=self.org_claim,
            env_claim=self.env_claim,
            role_claim=self.role_claim,
            email_claim=self.email_claim,
            default_env=self.default_env,
            default_role=self.default_role,
            leeway_s=self.leeway_s,
        )


class AuthSettings(Section):
    """Who may call."""

    type: Literal["apikey", "jwt"] = Field(
        default="apikey", description="`jwt`: JSON web tokens are accepted besides API keys."
    )
    secret: SecretStr | None = Field(
        default=None, description="Secret of at least 32 bytes that signs HS256 tokens, for `type: jwt`."
    )
    jwt: JwtSettings = Field(default=JwtSettings(), description="For `type: jwt`.")
    admin_key: SecretStr | None = Field(default=None, description="Key of the management API.")
    key_pepper: SecretStr | None = Field(
        default=None, description="Keys are stored as HMAC with this; changing it invalidates every key."
    )

    bad_keys_per_minute: Count = Field(
        default=20, description="More from one address are slowed with 429, each worker counting; 0: none are."
    )
    stale_after_s: Seconds = Field(
        default=3600.0,
        description="A gateway that cannot read the database for so long refuses requests with 503; 0: it never does.",
    )

    @field_validator("stale_after_s")
    @classmethod
    def _outlasts_a_reading(cls, value: float) -> float:
        if 0 < value < 2:  # one is due every quarter of a second, and after a failure within one
            raise ValueError("below 2s requests would be refused between two readings; use 2s or more, or 0 for never")
        return value

    @model_validator(mode="after")
    def _jwt_needs_secret(self) -> "AuthSettings":
        if self.type == "jwt" and self.secret is None and self.jwt.jwks_url is None:
            raise ValueError("type jwt needs a secret or jwt.jwks_url; set one of them or use type apikey")
        return self


class NodeSettings(Section):
    """A node known from the configuration: probed by us, it need not send heartbeats."""

    name: str = Field(default="", description="Name in lists and logs; the endpoint's host and port by default.")
    type: BackendKind | None = Field(default=None, strict=False, description="Engine; found out when absent.")
    endpoint: str = Field(description="Base URL, `http://host:port`.")
    timeout_s: Seconds | None = Field(default=None, description="Overrides `timeouts.total_s` for this node.")
    models: Texts = Field(default=(), description="Models it serves; asked from the node when empty.")
    api_key: SecretStr | None = Field(default=None, description="Key that the node itself asks for.")
    region: str = Field(default=HOME_REGION, description="Region for scheduling and prices.")
    cloud: str = Field(default="local", description="Provider.")
    spot: Truth = Field(default=False, description="May be taken away at short notice.")
    gpu_type: str | None = Field(default=None, description="GPU type.")
    gpu_count: Count = Field(default=1, description="Number of GPUs.")

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be a URL such as http://10.0.0.7:8000")
        if parts.username or parts.password:
            raise ValueError("must not carry a password; set api_key instead")
        return value.rstrip("/")

    def shown_name(self) -> str:
        return self.name or urlsplit(self.endpoint).netloc


class HealthSettings(Section):
    """When a node is not well ([health](health.md))."""

    interval_s: Seconds = Field(default=5.0, description="How often nodes are judged.")
    window_s: Seconds = Field(default=60.0, description="Requests that are younger count.")
    temperature_c: Positive = Field(default=90, description="Of the hottest GPU.")
    vram_fragmentation_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="Share of GPU memory that is held and cannot be used."
    )
    oom_events: Positive = Field(default=3, description="Times out of memory within `oom_window_s`.")
    oom_window_s: Seconds = Field(default=300.0, description="See there.")
    latency_factor: Annotated[float, Field(gt=1)] = Field(
        default=3.0, description="Time to the first token, over what is usual for the node and model."
    )
    error_ratio: Annotated[float, Field(gt=0, le=1)] = Field(default=0.2, description="Requests that the node failed.")
    min_requests: Positive = Field(default=10, description="Fewer say nothing about latency or errors.")
    unhealthy_after_s: Annotated[float, Field(ge=0)] = Field(
        default=15.0, description="Over a limit for so long, a node gets nothing new."
    )
    eject_s: Seconds = Field(default=30.0, description="For how long, the first time; doubles up to ten minutes.")
    max_ejected_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Most of the nodes of a model in a region that get nothing new; one may in any case."
    )


class FleetSettings(Section):
    """How nodes are watched."""

    heartbeat_interval_s: Seconds = Field(default=5.0, description="How often agents report.")
    dead_after_s: Seconds = Field(default=15.0, description="Silence after which a node counts as dead.")
    probe_interval_s: Seconds = Field(default=5.0, description="How often nodes of the configuration are probed.")
    drain_ttl_s: Seconds = Field(default=600.0, description="A draining node is removed after this.")
    health: HealthSettings = HealthSettings()

    @model_validator(mode="after")
    def _dead_after_a_missed_heartbeat(self) -> "FleetSettings":
        if self.dead_after_s <= self.heartbeat_interval_s:
            raise ValueError("dead_after_s must be longer than heartbeat_interval_s; three times as long is usual")
        return self


class SchedulingSettings(Section):
    """Which node serves a request."""

    strategy: Strategy = Field(default="least_loaded", description="How a node is picked.")
    retries: Annotated[Count, Field(le=10)] = Field(default=3, description="Other nodes to try before the first byte.")
    retry_backoff_s: Seconds = Field(default=0.05, description="Wait before the second attempt; doubles.")
    retry_budget_s: Seconds = Field(default=90.0, description="After its arrival a request is given no further node.")
    retry_wait_s: Annotated[float, Field(ge=0)] = Field(
        default=10.0, description="Longest wait for a node that sent Retry-After."
    )
    hedge_after_s: Seconds | None = Field(
        default=None, description="Without a first byte by then, a stream is sent to a second node, too; absent: never."
    )
    continuations: Annotated[Count, Field(le=10)] = Field(
        default=3, description="Nodes that may break under one stream after its first byte; 0 continues none."
    )
    continuation_max_chars: Count = Field(
        default=262_144, description="Text of an answer that is kept; longer ones are not continued."
    )
    max_requests_per_node: Positive | None = Field(
        default=None,
        description="Requests that a node runs at once, all workers together; with `enable_queuing` 256 when absent.",
    )
    policy: Literal["weighted-fair", "priority", "fifo", "preemptive"] = Field(
        default="weighted-fair", description="Order of requests that wait."
    )
    preemption_enabled: Truth = Field(
        default=False,
        description="With `policy: priority`: what waits may put back a lower request that has sent nothing yet.",
    )


class TimeoutSettings(Section):
    """How long a node may take."""

    connect_s: Seconds = Field(default=2.0, description="To accept a connection.")
    first_token_s: Seconds = Field(default=60.0, description="From request to first byte of the answer.")
    idle_s: Seconds = Field(default=30.0, description="Between two chunks.")
    total_s: Seconds = Field(default=600.0, description="For the whole answer.")

    @model_validator(mode="after")
    def _parts_fit(self) -> "TimeoutSettings":
        for part in ("connect_s", "first_token_s"):
            # A default longer than the total never comes to bear.
            if part in self.model_fields_set and getattr(self, part) > self.total_s:
                raise ValueError(f"{part} must not be longer than total_s")
        return self


class MetricsSettings(Section):
    """Prometheus metrics."""

    enabled: Truth = Field(default=True, description="Offer metrics.")
    port: Port | None = Field(default=None, description="A port of their own; absent: the port of the server.")
    path: str = Field(default="/metrics", pattern="^/", description="Path.")


class LogSettings(Section):
    """Structured logs, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Lowest level written.")
    format: Literal["auto", "json", "console"] = Field(default="auto", description="`auto`: console on a terminal.")
    access: Truth = Field(default=True, description="One line for each request.")

    @field_validator("level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return {"warn": "warning"}.get(value.lower(), value.lower()) if isinstance(value, str) else value


class JournalSettings(Section):
    """The durable usage journal."""

    dir: Directory | None = Field(default=None, description="Where it is kept; `data_dir`/journal when absent.")


def with_password(url: str, password: str | None) -> str:
    """`url` with `password`, unless it has one."""
    parts = urlsplit(url)
    if password is None or parts.password is not None or not parts.hostname:
        return url
    place = parts.netloc.rpartition("@")[2]
    credentials = f"{parts.username or ''}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{credentials}@{place}"))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
