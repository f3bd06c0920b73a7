"""Files over HTTP, as `weights.py` wants them: the three calls of fsspec that it uses, without what fsspec's own need.

Invariant: a file that ends before its announced length raises OSError; it never looks whole.
"""

from types import TracebackType

import httpx

TIMEOUT_S = 60.0
MAX_SMALL_BYTES = 16 * 1024 * 1024


class HttpFiles:
    """`path` is always a whole URL."""

    def __init__(self) -> None:
        self._http = httpx.Client(timeout=TIMEOUT_S, follow_redirects=True)

    def cat_file(self, path: str) -> bytes:
        """A small file. Raises FileNotFoundError, PermissionError and OSError, as all calls do."""
        answer = self._asked("GET", path)
        return answer.content[:MAX_SMALL_BYTES]

    def size(self, path: str) -> int:
        answer = self._asked("HEAD", path)
        length = answer.headers.get("content-length", "")
        if not length.isdigit():
            raise OSError("the server does not say how long the file is")
        return int(length)

    def open(self, path: str, _mode: str = "rb", block_size: int = 0) -> "_Remote":
        return _Remote(self._http, path)

    def _asked(self, method: str, url: str) -> httpx.Response:
        try:
            return _checked(self._http.request(method, url))
        except httpx.HTTPError as error:
            raise OSError(type(error).__name__) from None


class _Remote:
    """One file, read from where `seek` puts it."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http = http
        self._url = url
        self._position = 0

    def __enter__(self) -> "_Remote":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Nothing is kept open between reads."""

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, most_bytes: int) -> bytes:
        """The next bytes; none at the end. A range for each, so that a cut costs one of them."""
        wanted = {"range": f"bytes={self._position}-{self._position + most_bytes - 1}"}
        try:
            answer = self._http.get(self._url, headers=wanted)
        except httpx.HTTPError as error:
            raise OSError(type(error).__name__) from None
        if answer.status_code == 416:  # past the end
            return b""
        data = _checked(answer).content
        if answer.status_code == 200:  # the server knows no ranges, and sent all of it
            data = data[self._position : self._position + most_bytes]
        self._position += len(data)
        return data


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.status_code in (404, 410):
        raise FileNotFoundError
    if answer.status_code in (401, 403):
        raise PermissionError
    if not answer.is_success:
        raise OSError(f"status {answer.status_code}")
    return answer
