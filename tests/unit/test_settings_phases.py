"""Configurations of every phase of the interface document load as they stand there, and mean what they meant."""

from pathlib import Path

import pytest

from crosslogic.fleet.model import BackendKind
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.limits.model import Limits
from crosslogic.scheduling.registry import STRATEGIES
from crosslogic.settings.effects import warnings
from crosslogic.settings.model import FLAGS
from tests.unit.settings_files import settings_of

PHASE_1 = """
server_port: 9000
backends:
  - name: laptop
    type: ollama
    endpoint: http://127.0.0.1:11434
    timeout: 5m
  - {name: rack, type: vllm, endpoint: "http://10.0.0.7:8000/", timeout: 90s}
metrics:
  enabled: true
  port: 9090
  path: /metrics
"""

# The three additions, character for character from the document's "Migration Path".
PHASE_2 = """
# Add to config.yaml
enable_auth: true
enable_rate_limit: true
enable_caching: true
enable_queuing: true

auth:
  type: jwt
  secret: ${JWT_SECRET}

rate_limit:
  default_rpm: 60
"""
PHASE_3 = """
enable_multi_tenant: true
enable_priority: true
enable_cost_tracking: true

multi_tenant:
  default_tier: free

tiers:
  - id: free
    max_concurrency: 1
    priority: 1
  - id: pro
    max_concurrency: 5
    priority: 2
"""
PHASE_4 = """
enable_billing: true
enable_payments: true
enable_multi_model: true
enable_distributed: true

billing:
  cycle: monthly
  invoice_day: 1

payments:
  provider: stripe
  api_key: ${STRIPE_API_KEY}

models:
  - id: qwen-400b
    deployment:
      tensor_parallelism: 8
      nodes: [node1, node2]
"""
ENVIRON = {"JWT_SECRET": "jwt-secret", "STRIPE_API_KEY": "sk_test_1"}


def test_phase_1_asks_for_no_key_and_limits_nobody_as_it_did(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, PHASE_1)
    assert settings.server.port == 9000
    assert [(node.name, node.type, node.endpoint, node.timeout_s) for node in settings.nodes] == [
        ("laptop", BackendKind.OLLAMA, "http://127.0.0.1:11434", 300.0),
        ("rack", BackendKind.VLLM, "http://10.0.0.7:8000", 90.0),
    ]
    assert (settings.metrics.port, settings.metrics.path) == (9090, "/metrics")
    assert not settings.enable_auth
    assert not settings.enable_rate_limit
    assert any("enable_auth is false" in warning for warning in warnings(settings))


def test_phase_2_adds_keys_and_limits(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, PHASE_1 + PHASE_2, ENVIRON)
    assert settings.enable_auth
    assert settings.enable_rate_limit
    assert settings.auth.type == "jwt"
    assert settings.auth.secret is not None
    assert settings.auth.secret.get_secret_value() == "jwt-secret"
    assert settings.limits.key.limits() == Limits(requests_per_minute=60)


def test_phase_3_adds_tiers(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, PHASE_1 + PHASE_2 + PHASE_3, ENVIRON)
    assert [(tier.id, tier.plan().limits.concurrency, tier.priority) for tier in settings.tiers] == [
        ("free", 1, 1),
        ("pro", 5, 2),
    ]
    assert settings.multi_tenant.default_tier == "free"


def test_phase_4_adds_billing_and_models(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, PHASE_1 + PHASE_2 + PHASE_3 + PHASE_4, ENVIRON)
    assert settings.billing.invoice_day == 1
    assert settings.payments.api_key is not None
    assert settings.payments.api_key.get_secret_value() == "sk_test_1"
    assert settings.models[0].id == "qwen-400b"
    assert settings.models[0].deployment is not None
    assert settings.models[0].deployment.nodes == ("node1", "node2")


@pytest.mark.parametrize("phase", [PHASE_2, PHASE_3, PHASE_4])
def test_each_addition_stands_alone(tmp_path: Path, phase: str) -> None:
    assert settings_of(tmp_path, phase, ENVIRON).enable_auth


def test_what_has_no_effect_yet_is_said(tmp_path: Path) -> None:
    said = "\n".join(warnings(settings_of(tmp_path, PHASE_2 + PHASE_3 + PHASE_4, ENVIRON)))
    for setting in ("enable_distributed",):
        assert setting in said
    assert "enable_auth" not in said


def test_every_flag_of_the_document_is_a_setting(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "".join(f"{flag}: true\n" for flag in FLAGS))
    assert len(FLAGS) == 11
    assert all(getattr(settings, flag) for flag in FLAGS)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("backend_pool: {load_balancing_strategy: round-robin}", "scheduling.strategy", "round_robin"),
        ("backend_pool: {max_retries: 1, health_check_interval: 10s}", "fleet.probe_interval_s", 10.0),
        ("scheduler: {policy: fifo}", "scheduling.policy", "fifo"),
        ("rate_limit: {enabled: false}", "enable_rate_limit", False),
        ("cache: {enabled: true, backend: redis, default_ttl: 5m}", "cache.default_ttl_s", 300.0),
        ("queue: {max_size: 7, timeout: 1h30m}", "queue.timeout_s", 5400.0),
        ("distributed: {enabled: true, heartbeat_interval: 2s}", "fleet.heartbeat_interval_s", 2.0),
        ("capacity_planning: {forecast_horizon: 1d}", "capacity_planning.forecast_horizon_s", 86400.0),
        ("billing: {billing_cycle: usage-based}", "billing.cycle", "usage-based"),
        (
            "anomaly_detection: {sensitivity_level: 2, alert_channels: [slack]}",
            "anomaly_detection.sensitivity_level",
            2.0,
        ),
    ],
)
def test_the_document_s_structs_are_read(tmp_path: Path, text: str, path: str, value: object) -> None:
    found: object = settings_of(tmp_path, text)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_one_thing_said_in_two_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"server_port and server\.port are the same setting"):
        settings_of(tmp_path, "server_port: 1\nserver: {port: 2}")


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_can_be_chosen(tmp_path: Path, strategy: str) -> None:
    assert settings_of(tmp_path, f"scheduling: {{strategy: {strategy}}}").scheduling.strategy == strategy
