"""What `crosslogic doctor` looks at: one function for each dependency, each with its own advice.

Invariant: a check never raises for what it looks for; it answers with findings.
"""

import asyncio
import os
import resource
import sys
from collections.abc import Awaitable, Iterable
from typing import Literal

import httpx
import msgspec

from crosslogic.cli.preflight import require_port
from crosslogic.cli.servers import database_state, redis_state
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings import Settings
from crosslogic.settings.effects import warnings

OLDEST_PYTHON = (3, 11)
OPEN_FILES = 20_000  # 10,000 streams: a connection to the caller and one to the node each
CLOCK_SKEW_S = 2.0
NODE_TIMEOUT_S = 5.0


class Finding(msgspec.Struct, frozen=True):
    """`advice` says what to do, and is empty when all is well."""

    subject: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    advice: str = ""


async def diagnose(settings: Settings) -> list[Finding]:
    """All findings, in the order of the list below."""
    local = [*_python(), *_open_files(), *_data_dir(settings), *_port(settings), *_configuration(settings)]
    found = await asyncio.gather(_database(settings), _redis(settings), *_nodes(settings))
    return local + [finding for group in found for finding in group]


def _python() -> Iterable[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= OLDEST_PYTHON:
        yield Finding("Python", "ok", version)
    else:
        yield Finding("Python", "failed", version, "install Python 3.11 or newer")


def _open_files() -> Iterable[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # up to the hard limit the gateway raises its own
    reachable = OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    if reachable >= OPEN_FILES:
        yield Finding("open files", "ok", f"{soft}, can be raised to {'any number' if hard < 0 else hard}")
    else:
        yield Finding(
            "open files",
            "warning",
            f"at most {hard}",
            f"10,000 streams need {OPEN_FILES}: set LimitNOFILE in the systemd unit, or `ulimit -Hn`",
        )


def _data_dir(settings: Settings) -> Iterable[Finding]:
    for subject, path in (("data directory", settings.data_dir), ("journal", settings.journal_dir())):
        existing = next(place for place in (path, *path.absolute().parents) if place.exists())
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            yield Finding(subject, "ok", f"{path} can be written{'' if existing == path else ', once it is made'}")
        else:
            advice = "choose another with CROSSLOGIC_DATA_DIR, or give this user the right to write there"
            yield Finding(subject, "failed", f"{path} cannot be written", advice)


def _port(settings: Settings) -> Iterable[Finding]:
    host, port = settings.server.host, settings.server.port
    try:
        require_port(host, port, setting="server.port")
    except ConfigurationError as error:
        # a gateway that runs is no fault: this is asked of running installations, too
        yield Finding("port", "warning", f"{host}:{port} is taken", f"fine if that is the gateway; else: {error}")
    else:
        yield Finding("port", "ok", f"{host}:{port} is free")


def _configuration(settings: Settings) -> Iterable[Finding]:
    found = warnings(settings)
    if not found:
        yield Finding("configuration", "ok", str(settings.source.path or "environment and defaults"))
    for warning in found:
        yield Finding("configuration", "warning", warning, "see `crosslogic config check`")


async def _database(settings: Settings) -> list[Finding]:
    if settings.database.address() is None and not settings.sqlite_file().exists():
        return [Finding("database", "ok", f"none yet: `crosslogic up` makes {settings.sqlite_file()}")]
    try:
        state = await database_state(settings.database_url())
    except ConfigurationError as error:
        return [Finding("database", "failed", *_split(error))]
    if state.pending:
        pending = f"{state.version}, {len(state.pending)} migration(s) pending"
        found = Finding("database", "failed", pending, "run `crosslogic migrate`")
    else:
        found = Finding("database", "ok", f"{state.version}, schema up to date")
    return [found, *_clock("the database", state.clock_ahead_s)]


async def _redis(settings: Settings) -> list[Finding]:
    url = settings.redis.address()
    if url is None:
        return [Finding("Redis", "ok", "not configured: limits are counted in one process")]
    try:
        state = await redis_state(url)
    except ConfigurationError as error:
        return [Finding("Redis", "failed", *_split(error))]
    return [Finding("Redis", "ok", f"{state.version}, scripts allowed"), *_clock("Redis", state.clock_ahead_s)]


def _clock(server: str, ahead_s: float) -> list[Finding]:
    if abs(ahead_s) <= CLOCK_SKEW_S:
        return [Finding("clock", "ok", f"within {CLOCK_SKEW_S:.0f} s of {server}'s")]
    return [
        Finding(
            "clock",
            "failed",
            f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} {server}'s",
            "synchronise both machines (chrony, systemd-timesyncd): limits and bills go by the clock",
        )
    ]


def _nodes(settings: Settings) -> Iterable[Awaitable[list[Finding]]]:
    for node in settings.nodes:
        key = node.api_key.get_secret_value() if node.api_key else None
        yield _node(node.shown_name(), node.endpoint, key)


async def _node(name: str, endpoint: str, api_key: str | None) -> list[Finding]:
    """Every engine that we know lists its models, so that is what is asked."""
    subject = f"node {name}"
    url = f"{endpoint.removesuffix('/v1')}/v1/models"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with httpx.AsyncClient(timeout=NODE_TIMEOUT_S, trust_env=False) as client:
            answer = await client.get(url, headers=headers)
        names = [str(model["id"]) for model in answer.json()["data"]] if answer.is_success else []
    except httpx.HTTPError as error:
        return [Finding(subject, "failed", f"{endpoint}: {type(error).__name__}", "start it, or correct its endpoint")]
    except (ValueError, KeyError, TypeError):
        return [Finding(subject, "failed", f"{url} is no list of models", "give the server's base URL as endpoint")]
    if answer.status_code in (401, 403):
        return [Finding(subject, "failed", f"{endpoint} refuses our key", "set the node's api_key")]
    if not answer.is_success:
        return [Finding(subject, "failed", f"{url} answers {answer.status_code}", "look at the node's log")]
    return [Finding(subject, "ok", f"{endpoint} serves {', '.join(names) or 'no model yet'}")]


def _split(error: ConfigurationError) -> tuple[str, str]:
    """Our sentences say what is wrong, a semicolon, and what to do."""
    detail, _, advice = str(error).partition("; ")
    return detail, advice
