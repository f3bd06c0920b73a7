"""Settings of `crosslogic agent`, the program beside an engine."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from crosslogic.settings.values import Bytes, Directory, Port, Seconds, Section, Texts, Truth


class MetadataSettings(Section):
    """Where clouds say what they do with this machine."""

    aws_url: str = Field(default="http://169.254.169.254", description="AWS, IMDSv2.")
    gcp_url: str = Field(default="http://metadata.google.internal", description="Google Cloud.")
    azure_url: str = Field(default="http://169.254.169.254", description="Azure.")
    timeout_s: Seconds = Field(default=1.0, description="How long an answer may take.")


class WeightsSettings(Section):
    """Where a model's weights come from, for engines that read them from a folder."""

    source: str | None = Field(default=None, description="`https://…`, `s3://…`, `gs://…`, `az://…` or a folder.")
    dir: Directory | None = Field(
        default=None, description="Where they are kept; `agent.data_dir`/weights when absent."
    )
    sha256: dict[str, str] = Field(
        default={}, description="Checksums by file name; a `SHA256SUMS` at the source counts too."
    )
    max_bytes: Bytes | None = Field(default=None, description="Weights used longest ago are removed above this.")


class AgentSettings(Section):
    """`crosslogic agent`: one for each node ([agents](agents.md))."""

    control: str | None = Field(default=None, description="Address of the management API, to join at.")
    token: SecretStr | None = Field(default=None, description="Join token, for the first start.")
    data_dir: Directory = Field(default=Path(".crosslogic-agent"), description="Key and certificate.")
    node_id: str = Field(default="", max_length=128, description="Id of its own; made when it joins when absent.")
    region: str = Field(default="", description="Where the join token names none.")
    deployment: str = Field(default="", max_length=128, description="Deployment that this node is a part of, `dep_…`.")
    cloud: Literal["aws", "gcp", "azure", "local"] | None = Field(
        default=None, description="Absent: asked from the metadata services."
    )
    spot: Truth | None = Field(default=None, description="May be taken away; absent: asked.")
    engine: Literal["vllm", "sglang", "ollama", "llamacpp", "simulate"] = Field(
        default="vllm", description="Engine to run."
    )
    engine_url: str | None = Field(default=None, description="An engine that runs already, to be watched instead.")
    engine_command: Texts = Field(
        default=(), description="Instead of the engine's own command line; may hold {model}, {host} and {port}."
    )
    engine_arguments: Texts = Field(default=(), description="Added to the engine's command line.")
    engine_key: SecretStr | None = Field(default=None, description="Key that the engine asks for.")
    engine_host: str = Field(default="127.0.0.1", description="Address that the engine listens on.")
    engine_port: Port = Field(default=8000, description="Port that the engine listens on.")
    model: str = Field(default="", description="Model to serve: a name or a folder.")
    endpoint: str | None = Field(default=None, description="How gateways reach the engine; absent: found out.")
    tunnel: Texts = Field(
        default=(),
        description="Tunnel ports of gateways (`host:port`) to dial, where none can connect to the engine.",
    )
    benchmark: Truth = Field(default=True, description="Measure the engine before it takes requests.")
    drain_s: Seconds = Field(default=120.0, description="On stop, running answers get this long to finish.")
    metrics_interval_s: Annotated[Seconds, Field(gt=0)] = Field(default=15.0, description="How often metrics are sent.")
    spot_poll_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=2.0, description="How often spot notices are asked for."
    )
    metadata: MetadataSettings = MetadataSettings()
    weights: WeightsSettings = WeightsSettings()
