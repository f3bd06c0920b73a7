"""A wrong configuration is one sentence: where it is written, what is wrong, what to do."""

from pathlib import Path

import pytest

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings import SettingsSource, load_settings
from crosslogic.settings.mistakes import InvalidSettings
from tests.unit.settings_files import settings_of


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sever: {port: 1}", "sever is no setting; did you mean server?"),
        ("server: {prot: 1}", "server.prot is no setting; did you mean server.port?"),
        ("server: {banana: 1}", "server.banana is no setting; remove it"),
        ("server: {port: 99999}", "server.port is 99999, but must be less than or equal to 65535"),
        ("server: {port: true}", "server.port is true, but must be a whole number"),
        ("server: {port: 80.5}", "server.port is 80.5, but must be a whole number"),
        ("server: 5", "server is 5, but must hold names and values"),
        ("server: {drain_s: soon}", "server.drain_s is 'soon', but must be a duration such as 250ms, 30s, 5m or 1h30m"),
        ("enable_auth: perhaps", "enable_auth is 'perhaps', but must be true or false"),
        ("scheduling: {strategy: best}", "scheduling.strategy is 'best', but must be 'least_loaded', 'round_robin'"),
        ("models: {a: 1}", "models must be a list"),
        ("models: [{id: a, fallback: [b]}]", "models[0].fallback is no setting; did you mean models[0].fallbacks?"),
        ("models: [{id: a}, {id: b, aliases: [a]}]", "models uses the id or alias 'a' more than once"),
        ("models: [{id: a, fallbacks: [a]}]", "a cannot be its own alias or fallback"),
        ("models: [{id: a, context_window: 8, max_output_tokens: 9}]", "max_output_tokens must not be larger"),
        ("nodes: [{name: a}]", "nodes[0].endpoint is missing; set it"),
        ("nodes: [{endpoint: 'http://a:1'}, {endpoint: 'http://a:1'}]", "nodes uses the name 'a:1' more than once"),
        ("backends: [{endpoint: x}]", "backends[0].endpoint must be a URL such as http://10.0.0.7:8000"),
        ("backends: [{endpoint: 'http://a', timeout: x}]", "backends[0].timeout is 'x', but must be a duration"),
        ("rate_limit: {default_rpm: 0}", "rate_limit.default_rpm is 0, but must be greater than or equal to 1"),
        ("auth: {type: jwt}", "type jwt needs a secret"),
        ("auth: {stale_after_s: 1}", "below 2s requests would be refused between two readings"),
        ("multi_tenant: {default_tier: x}\ntiers: [{id: y}]", "default_tier is 'x', but tiers has no such id"),
        ("prices: {m: {input_usd_per_million: 0.0000001, output_usd_per_million: 1}}", "no whole number of pico-USD"),
        ("prices: {m: {input_usd_per_million: -1, output_usd_per_million: 1}}", "must be greater than or equal to 0"),
        ("timeouts: {connect_s: 20m}", "connect_s must not be longer than total_s"),
        ("fleet: {dead_after_s: 5}", "dead_after_s must be longer than heartbeat_interval_s"),
        ("timeouts: {idle_s: .nan}", "timeouts.idle_s is nan"),
        ("a: 1\na: 2", "line 2, column 1: a stands here a second time"),
        ("server: [", "line 1, column 10"),
        ("- a", "must hold names and values such as `server:`"),
        ("auth: {secret: '${NOT_SET}'}", "auth.secret refers to the environment variable NOT_SET, which is not set"),
    ],
)
def test_the_sentence_names_file_field_and_remedy(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        settings_of(tmp_path, text)
    said = str(raised.value)
    assert said.startswith(str(tmp_path / "config.yaml"))
    assert sentence in said
    assert "\n" not in said


def test_the_variable_is_named_where_it_is_at_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^environment variable DB_PORT is 'x', but must be a whole number"):
        settings_of(tmp_path, "database: {port: 1}", {"DB_PORT": "x"})


def test_the_flag_is_named_where_it_is_at_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^command line: server\.port is 70000"):
        settings_of(tmp_path, "server: {port: 1}", flags={"server": {"port": 70000}})


def test_all_mistakes_are_kept_and_the_first_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings) as raised:
        settings_of(tmp_path, "server: {port: -1}\nlog: {level: loud}\nbanana: 1")
    assert len(raised.value.mistakes) == 3
    assert "(2 more: run `crosslogic config check`)" in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "auth: {admin_key: 4242424242}",
        "database: {password: 4242424242}",
        "payments: {api_key: [4242424242]}",
        "nodes: [{endpoint: 'ftp://me:4242424242@a'}]",
        "nodes: [{endpoint: 'http://me:4242424242@a'}]",
    ],
)
def test_a_wrong_secret_is_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        settings_of(tmp_path, text)
    assert "4242" not in str(raised.value)


def test_a_missing_file() -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml does not exist; give another with --config"):
        load_settings(SettingsSource(Path("nowhere.yaml")))


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load_settings(SettingsSource(tmp_path))
