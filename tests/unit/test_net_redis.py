"""Redis URLs: what they mean, what is refused, and that no password is ever shown."""

import pytest

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.net.redis_address import RedisAddress, parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", RedisAddress("localhost", 6379)),
        ("redis://10.0.0.1:7000/4", RedisAddress("10.0.0.1", 7000, 4)),
        ("redis://:p%40ss@h", RedisAddress("h", 6379, password="p@ss")),
        ("redis://me:pass@[::1]:6380/0", RedisAddress("::1", 6380, username="me", password="pass")),
        ("rediss://h?ssl_ca_certs=/ca.pem", RedisAddress("h", 6379, tls=True, ca_file="/ca.pem")),
        ("unix:///run/redis.sock?db=2", RedisAddress("127.0.0.1", 6379, 2, socket_path="/run/redis.sock")),
    ],
)
def test_a_url_names_everything_that_is_needed(url: str, address: RedisAddress) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url", ["", "http://h", "redis://h:port", "redis://h:99999", "redis://h/many", "localhost:6379"]
)
def test_a_malformed_url_is_a_configuration_error_that_does_not_repeat_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_url(url)
    assert "redis://" in str(refused.value)


def test_no_password_is_shown() -> None:
    address = parse_url("rediss://user:hunter2@h:1/2")
    assert "hunter2" not in f"{address} {address!r}"
