"""What a Redis URL means. The password is in the value and never in what is printed of it."""

from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from crosslogic.kernel.errors import ConfigurationError


class RedisAddress(msgspec.Struct, frozen=True):
    """Where a Redis is and how to sign in. Its repr leaves the password out."""

    host: str
    port: int
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: str | None = None
    socket_path: str | None = None

    def __repr__(self) -> str:
        return f"RedisAddress({self})"

    def __str__(self) -> str:
        return self.socket_path or f"{self.host}:{self.port}"


def parse_url(url: str) -> RedisAddress:
    """`redis://[user[:password]@]host[:port][/database]`, `rediss://…` for TLS (`?ssl_ca_certs=FILE`), `unix://path`.

    Raises ConfigurationError.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
        query = parse_qs(parts.query)
        number = query["db"][0] if "db" in query else parts.path.strip("/") if parts.scheme != "unix" else ""
        database = int(number or 0)
    except ValueError as error:
        raise ConfigurationError("the Redis URL is malformed: write redis://host:6379/0") from error
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError("the Redis URL must begin with redis://, rediss:// or unix://")
    return RedisAddress(
        host=parts.hostname or "127.0.0.1",
        port=port,
        database=database,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "rediss",
        ca_file=query["ssl_ca_certs"][0] if "ssl_ca_certs" in query else None,
        socket_path=unquote(parts.path) if parts.scheme == "unix" else None,
    )
