"""Flags win over the environment, that over the file, that over defaults; and what each may look like."""

import pickle
from pathlib import Path

import pytest

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings import SettingsSource, load_settings
from crosslogic.settings.effects import warnings
from crosslogic.settings.show import as_yaml
from tests.unit.settings_files import settings_of, write


def test_the_stronger_layer_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "server: {port: 2, host: file, drain_s: 2}")
    environ = {"SERVER_PORT": "3", "SERVER_HOST": "alias", "CROSSLOGIC_SERVER__HOST": "ours"}
    settings = load_settings(
        SettingsSource(
            path, environ, flags={"server": {"port": 4}}, defaults={"server": {"drain_s": 1, "idle_timeout_s": 1}}
        )
    )
    server = settings.server
    assert (server.port, server.host, server.drain_s, server.idle_timeout_s) == (4, "ours", 2.0, 1.0)


def test_the_overview_s_environment_configures_a_server() -> None:
    environ = {
        "SERVER_HOST": "0.0.0.0",
        "SERVER_PORT": "8080",
        "DB_HOST": "db",
        "DB_PORT": "5433",
        "DB_USER": "crosslogic",
        "DB_PASSWORD": "p@ss/word",
        "DB_NAME": "crosslogic_iaas",
        "REDIS_HOST": "cache",
        "REDIS_PORT": "6380",
        "STRIPE_SECRET_KEY": "sk_live_x",
        "BILLING_EXPORT_INTERVAL": "5m",
        "BILLING_AGGREGATION_INTERVAL": "1h",
        "LOG_LEVEL": "INFO",
        "PROMETHEUS_PORT": "9090",
    }
    settings = load_settings(SettingsSource(environ=environ))
    assert settings.database_url() == "postgresql://crosslogic:p%40ss%2Fword@db:5433/crosslogic_iaas"
    assert settings.redis.address() == "redis://cache:6380/0"
    assert settings.billing.export_interval_s == 300.0
    assert settings.cost_tracking.aggregation_interval_s == 3600.0
    assert (settings.log.level, settings.metrics.port) == ("info", 9090)


@pytest.mark.parametrize(
    ("text", "environ", "url"),
    [
        ("", {}, "sqlite:///.crosslogic/crosslogic.db"),
        (
            "database: {url: 'postgresql://u@file/x'}",
            {"DB_HOST": "env", "DB_USER": "e"},
            "postgresql://e@env:5432/crosslogic_iaas",
        ),
        ("database: {host: file}", {"DATABASE_URL": "postgresql://env/x"}, "postgresql://env/x"),
        ("", {"DATABASE_URL": "postgresql://url/x", "DB_HOST": "part"}, "postgresql://url/x"),
        ("database: {url: 'postgresql://u@file/x'}", {"DB_PASSWORD": "secret"}, "postgresql://u:secret@file/x"),
        ("database: {url: 'postgresql://u:own@file/x'}", {"DB_PASSWORD": "other"}, "postgresql://u:own@file/x"),
        ("database: {host: '::1', user: me}", {}, "postgresql://me@[::1]:5432/crosslogic_iaas"),
    ],
)
def test_url_and_parts_of_the_database(tmp_path: Path, text: str, environ: dict[str, str], url: str) -> None:
    assert settings_of(tmp_path, text, environ).database_url() == url


def test_an_embedded_cloud_ignores_the_servers_of_other_programs() -> None:
    environ = {"DB_HOST": "theirs", "REDIS_URL": "redis://theirs", "SERVER_PORT": "9000"}
    settings = load_settings(SettingsSource(environ=environ, embedded=True))
    assert settings.database.address() is None
    assert settings.redis.address() is None
    assert settings.server.port == 9000
    ours = load_settings(SettingsSource(environ={"CROSSLOGIC_DATABASE__HOST": "ours"}, embedded=True))
    assert ours.database.host == "ours"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30.0), ("5m", 300.0), ("1h30m", 5400.0), ("1d", 86400.0), ("2.5", 2.5), ("7", 7.0)],
)
def test_durations(tmp_path: Path, text: str, seconds: float) -> None:
    assert settings_of(tmp_path, f"timeouts: {{idle_s: {text}}}").timeouts.idle_s == seconds
    assert load_settings(SettingsSource(environ={"CROSSLOGIC_TIMEOUTS__IDLE_S": text})).timeouts.idle_s == seconds


def test_a_bare_number_is_in_the_unit_of_the_name(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "redis: {timeout_ms: 20}")
    assert settings.redis.timeout_ms == 20.0
    assert settings_of(tmp_path, "redis: {timeout_ms: 1s}").redis.timeout_ms == 1000.0


def test_sizes_lists_and_nested_names_in_variables() -> None:
    settings = load_settings(
        SettingsSource(
            environ={
                "CROSSLOGIC_SERVER__MAX_BODY_BYTES": "4MiB",
                "CROSSLOGIC_NODES": '[{"endpoint": "http://a:1"}, {"endpoint": "http://b:2", "models": ["m"]}]',
                "CROSSLOGIC_LIMITS__GLOBAL__CONCURRENCY": "5",
                "CROSSLOGIC_ANOMALY_DETECTION__ALERT_CHANNELS": "email, slack",
                "CROSSLOGIC_ENABLE_CACHING": "yes",
                "CROSSLOGIC_SERVER__PORT": "",
            }
        )
    )
    assert settings.server.max_body_bytes == 4 * 2**20
    assert [node.shown_name() for node in settings.nodes] == ["a:1", "b:2"]
    assert settings.limits.global_.concurrency == 5
    assert settings.anomaly_detection.alert_channels == ("email", "slack")
    assert settings.enable_caching
    assert settings.server.port == 8080


def test_variables_in_the_file(tmp_path: Path) -> None:
    text = "server: {port: '${PORT}', host: '${HOST:-localhost}'}\ndatabase: {name: 'a$${b}'}"
    settings = settings_of(tmp_path, text, {"PORT": "81"})
    assert (settings.server.port, settings.server.host, settings.database.name) == (81, "localhost", "a${b}")


def test_a_value_with_yaml_in_it_stays_one_value(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "auth: {admin_key: '${KEY}'}", {"KEY": "a: b # c\nd: e"})
    assert settings.auth.admin_key is not None
    assert settings.auth.admin_key.get_secret_value() == "a: b # c\nd: e"


def test_kubernetes_own_variables_do_no_harm() -> None:
    environ = {"CROSSLOGIC_PORT": "tcp://10.0.0.1:80", "CROSSLOGIC_SERVICE_HOST": "10.0.0.1", "CROSSLOGIC_PROT": "1"}
    settings = load_settings(SettingsSource(environ=environ))
    assert settings.server.port == 8080
    assert warnings(settings) == ["the environment variable CROSSLOGIC_PROT sets nothing"]


def test_a_misspelt_variable_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="did you mean CROSSLOGIC_SERVER__PORT"):
        load_settings(SettingsSource(environ={"CROSSLOGIC_SERVER__PROT": "1"}))


def test_no_secret_can_be_read_from_what_is_shown(tmp_path: Path) -> None:
    text = """
    database: {url: "postgresql://me:s3cr3t-db@db/x"}
    redis: {url: "redis://:s3cr3t-redis@cache:6379/0", password: s3cr3t-pw}
    auth: {secret: s3cr3t-jwt, admin_key: s3cr3t-admin, key_pepper: s3cr3t-pepper}
    nodes: [{endpoint: "http://a:1", api_key: s3cr3t-node}]
    payments: {api_key: s3cr3t-stripe, webhook_secret: s3cr3t-hook}
    """
    settings = settings_of(tmp_path, text, {"OTHER": "s3cr3t-env"})
    shown = as_yaml(settings)
    assert "s3cr3t" not in shown + repr(settings) + str(settings) + repr(settings.source)
    assert "postgresql://me:***@db/x" in shown
    assert shown.count("***") == 9


def test_a_worker_process_gets_the_same_settings_and_can_read_them_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "auth: {admin_key: '${KEY}'}", {"KEY": "k"})
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert load_settings(copy.source) == settings


def test_the_example_for_systemd_is_right() -> None:
    example = Path(__file__).parents[2] / "deploy" / "systemd" / "crosslogic.yaml"
    settings = load_settings(SettingsSource(example, {"DB_PASSWORD": "x"}))
    assert settings.database_url() == "postgresql://crosslogic:x@127.0.0.1:5432/crosslogic_iaas"
    assert warnings(settings) == []
