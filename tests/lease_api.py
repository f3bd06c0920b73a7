"""The part of a Kubernetes API server that leases use, as a real HTTP server: versions that rise with each write,
409 for one that is out of date or for a second creation, 404 for what is not there, 401 without the token.

It stands for the real one, which cannot be had here; its answers follow the API conventions of Kubernetes
(optimistic concurrency by `metadata.resourceVersion`).
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a-service-account-token"


class _Api(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.leases: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: _Api

    def do_GET(self) -> None:
        with self.server.lock:
            found = self.server.leases.get(self._name())
        self._answer(200 if found else 404, found or {"kind": "Status", "reason": "NotFound"})

    def do_POST(self) -> None:
        body = self._body()
        with self.server.lock:
            taken = body["metadata"]["name"] in self.server.leases
            answer = {"kind": "Status", "reason": "AlreadyExists"} if taken else self._store(body)
        self._answer(409 if taken else 201, answer)

    def do_PUT(self) -> None:
        body = self._body()
        with self.server.lock:
            stored = self.server.leases.get(self._name())
            fresh = stored is not None and stored["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
            answer = self._store(body) if fresh else {"kind": "Status", "reason": "Conflict"}
        self._answer(200 if fresh else 409, answer)

    def _store(self, body: dict[str, Any]) -> dict[str, Any]:
        self.server.version += 1
        body["metadata"] = {**body["metadata"], "resourceVersion": str(self.server.version)}
        self.server.leases[body["metadata"]["name"]] = body
        return body

    def _name(self) -> str:
        return self.path.rsplit("/", 1)[1]

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        return body

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            status, body = 401, {"kind": "Status", "reason": "Unauthorized"}
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def lease_api() -> Iterator[str]:
    """Its URL."""
    server = _Api()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
