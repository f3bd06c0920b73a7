"""Settings of the planner: which language model, if any, helps to understand what people say."""

from typing import Annotated

from pydantic import Field, SecretStr

from crosslogic.settings.values import Seconds, Section


class CompassSettings(Section):
    """The planner ([compass](compass.md)); without a language model it understands by rules alone."""

    llm_url: str | None = Field(
        default=None,
        description="OpenAI-compatible base URL, such as `http://127.0.0.1:8080/v1`; absent: none is asked.",
    )
    llm_model: str = Field(default="", description="Model to ask there.")
    llm_api_key: SecretStr | None = Field(default=None, description="Key for it.")
    llm_timeout_s: Seconds = Field(default=10.0, description="After this, what the rules understood counts.")
    kubeconfig: str | None = Field(
        default=None,
        description="File that says where planned deployments are applied; `in-cluster`: here; absent: nowhere.",
    )
    kube_context: str | None = Field(default=None, description="Context in it; absent: its current one.")
    prometheus_url: str | None = Field(
        default=None, description="Where outcomes of deployments are read; absent: in the ledger alone."
    )
    outcome_window_s: Annotated[Seconds, Field(ge=60, le=86_400)] = Field(
        default=300.0, description="What deployments do is held against their forecasts in windows so long."
    )
    grafana_url: str | None = Field(
        default=None, description="Where their dashboards are, for links to them; absent: no links."
    )
