"""The management API, as the admin commands use it.

Invariant: the admin key goes into one header and nowhere else; no message repeats it.
"""

import inspect
import json
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import httpx

from crosslogic.cli.flags import DATA_DIR, AdminKeyOption, DataDirOption, UrlOption
from crosslogic.kernel.errors import (
    ConfigurationError,
    Conflict,
    CrossLogicError,
    Forbidden,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    Unavailable,
)

TIMEOUT_S = 10.0
CREDENTIALS_FILE = "credentials.json"
PAGE_ROWS = 500


Options = ParamSpec("Options")

_OF_STATUS: Mapping[int, type[CrossLogicError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    503: Unavailable,
}


class Management:
    """A connection to the management API; use it in a `with`."""

    def __init__(self, url: str, admin_key: str) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        try:
            self._http = httpx.Client(
                base_url=self._url,
                headers={"Authorization": f"Bearer {admin_key}"},
                timeout=TIMEOUT_S,
                trust_env=False,  # a proxy for the internet must not see the admin key
            )
        except (httpx.InvalidURL, ValueError):  # ValueError: a key that cannot stand in a header
            raise ConfigurationError(f"{self._url!r} or the admin key is not well-formed; check --url") from None

    def __enter__(self) -> "Management":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """Raises CrossLogicError, as every call does."""
        return self._call("GET", path, query=query)

    def text(self, path: str, **query: Any) -> str:
        """An answer that is no JSON, such as CSV."""
        return self.download(path, **query).decode()

    def download(self, path: str, **query: Any) -> bytes:
        """A file, whatever it is."""
        return bytes(self._call("GET", path, query=query, as_file=True))

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        return self._call("POST", path, body=body or {}, headers=headers, timeout_s=timeout_s)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call("PATCH", path, body=body)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call("PUT", path, body=body)

    def delete(self, path: str, **query: Any) -> Any:
        return self._call("DELETE", path, query=query)

    def rows(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All rows of a list, page by page."""
        cursor = None
        while True:
            page = self.get(path, **query, cursor=cursor, limit=PAGE_ROWS)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        as_file: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        params = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.request(method, path, params=params, json=body, headers=headers, timeout=timeout_s)
            if as_file and answer.is_success:
                return answer.content
            content = answer.json() if answer.content else None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise ConfigurationError(f"{self._url!r} is no URL; write --url http://host:port") from None
        except httpx.TimeoutException:
            raise Unavailable(f"{self._url} did not answer within {timeout_s:.0f} s") from None
        except httpx.HTTPError:
            raise Unavailable(
                f"nothing answers at {self._url}; start `crosslogic up` or `crosslogic control`, or give another --url"
            ) from None
        except ValueError:
            raise Unavailable(f"{self._url} is no management API: its answer is not JSON") from None
        if answer.is_success:
            return content
        raise _OF_STATUS.get(answer.status_code, CrossLogicError)(_message(answer.status_code, content))


def management(url: str | None, admin_key: str | None, data_dir: Path) -> Management:
    """From flags or environment, else from the credentials that a local `crosslogic up` left in `data_dir`.

    Raises ConfigurationError when an address or key is to be found nowhere.
    """
    local = {} if url and admin_key else read_credentials(data_dir)
    if url and url != local.get("base_url"):
        local = {}  # a key is for one cloud: the local one's is not sent to another address
    url, admin_key = url or local.get("base_url"), admin_key or local.get("admin_key")
    if not url:
        raise ConfigurationError(
            f"no cloud found: there is no {data_dir / CREDENTIALS_FILE}; start `crosslogic up` here, "
            "or set CROSSLOGIC_URL and CROSSLOGIC_ADMIN_KEY"
        )
    if not admin_key:
        raise ConfigurationError("the admin key is missing; set CROSSLOGIC_ADMIN_KEY")
    return Management(url, admin_key)


def with_management(command: Callable[Concatenate[Management, Options], None]) -> Callable[..., None]:
    """A command whose first parameter is the management API: it gets the options that say where that is.

    They stand after its own, and are the same for all commands. It raises what `management` does.
    """

    @wraps(command)
    def run(url: str | None, admin_key: str | None, data_dir: Path, *args: Options.args, **own: Options.kwargs) -> None:
        with management(url, admin_key, data_dir) as api:
            command(api, *args, **own)

    after_api = list(inspect.signature(command).parameters.values())[1:]
    # typer reads the options of a command from its signature
    run.__signature__ = inspect.Signature([*after_api, *_WHERE])  # type: ignore[attr-defined]
    return run


def _option(name: str, kind: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)


_WHERE = (
    _option("url", UrlOption, None),
    _option("admin_key", AdminKeyOption, None),
    _option("data_dir", DataDirOption, DATA_DIR),
)


def read_credentials(data_dir: Path) -> dict[str, str]:
    """What `crosslogic up` left in `data_dir`; empty when it never ran there. Raises ConfigurationError."""
    path = data_dir / CREDENTIALS_FILE
    try:
        if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise ConfigurationError(f"others may read {path}; run `chmod 600 {path}`")
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise ConfigurationError(f"{path} cannot be read; remove it and start `crosslogic up` again") from None
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _message(status: int, content: Any) -> str:
    error = content.get("error") if isinstance(content, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(message) if message else f"the management API answered {status}"
