"""A Kubernetes API server that remembers: HTTP in a thread, for the real client to talk to.

Server-side apply with field ownership and conflicts, dry runs that change nothing, namespaces that must exist, quotas,
RBAC by verb and resource, unknown kinds, and pods that a Deployment or InferenceService makes once it is applied.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

TOKEN = "a-service-account"


class State:
    """What the cluster holds, by path."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, dict[str, str]] = {}  # path → leaf → manager
        self.forbidden: set[tuple[str, str]] = set()  # (verb, plural)
        self.unknown_groups: set[str] = set()
        self.failing_after: int | None = None  # writes that still work
        self.calls: list[tuple[str, str, bool]] = []
        self.ready = True
        self.engine_url: str | None = None  # what answers behind each service; None: no pod does
        self.lock = threading.RLock()

    def leaves(self, value: Any, at: str = "") -> dict[str, Any]:
        """Fields with their values; lists are one field, as atomic ones are."""
        if isinstance(value, dict):
            found: dict[str, Any] = {}
            for key, each in value.items():
                found |= self.leaves(each, f"{at}.{key}")
            return found
        return {at: value}

    def apply(self, path: str, body: dict[str, Any], manager: str, *, force: bool, dry_run: bool) -> tuple[int, Any]:
        wanted = {
            name: value for name, value in self.leaves(body).items() if not name.startswith((".apiVersion", ".kind"))
        }
        has = self.leaves(self.objects.get(path, {}))
        owners = self.owners.get(path, {})
        taken = [
            name
            for name, value in wanted.items()
            if owners.get(name, manager) != manager and name in has and has[name] != value
        ]
        if taken and not force:
            return 409, failure(f'Apply failed with 1 conflict: conflict with "{owners[taken[0]]}": {taken[0]}', 409)
        if dry_run:
            return 200, body
        created = path not in self.objects
        kept = {name: owner for name, owner in owners.items() if owner != manager and name not in wanted}
        self.owners[path] = kept | dict.fromkeys(wanted, manager)
        merged = {name: value for name, value in has.items() if name in kept}
        self.objects[path] = unflatten(merged | wanted) | {"apiVersion": body["apiVersion"], "kind": body["kind"]}
        return 201 if created else 200, self.objects[path]

    def edited(self, path: str, field: str, value: Any, manager: str) -> None:
        """Somebody else changes a field and owns it."""
        leaves = self.leaves(self.objects[path]) | {field: value}
        self.objects[path] = unflatten(leaves)
        self.owners[path][field] = manager


def unflatten(leaves: dict[str, Any]) -> dict[str, Any]:
    """Keys hold dots themselves; a NUL stands for the dots between them."""
    found: dict[str, Any] = {}
    for name, value in leaves.items():
        place = found
        parts = split(name)
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    return found


def split(name: str) -> list[str]:
    """`.metadata.labels.app.kubernetes.io/name` has a key with dots below labels, annotations and the like."""
    parts = name[1:].split(".")
    for index, part in enumerate(parts[:-1]):
        if part in ("labels", "annotations", "matchLabels", "selector", "hard", "data") and index + 1 < len(parts):
            if part == "selector" and parts[index + 1] in ("matchLabels", "matchExpressions"):
                continue
            return [*parts[: index + 1], ".".join(parts[index + 1 :])]
    return parts


def failure(message: str, code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer("get")

    def do_PATCH(self) -> None:
        self._answer("patch")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def do_POST(self) -> None:
        self._answer("create")

    def _answer(self, verb: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        with contextlib.nullcontext() if "/proxy/" in self.path else self.state.lock:
            code, found = self._decide(verb, body)
        data = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _decide(self, verb: str, body: bytes) -> tuple[int, Any]:
        state, url = self.state, urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        dry_run = query.get("dryRun") == "All"
        state.calls.append((verb, url.path, dry_run))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, failure("Unauthorized", 401)
        parts = url.path.strip("/").split("/")
        group = "" if parts[0] == "api" else parts[1]
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural = rest[0]
        if len(rest) > 3 and rest[2] == "proxy":
            return self._proxied(namespace or "", rest, body)
        if group in state.unknown_groups:
            return 404, failure("the server could not find the requested resource", 404)
        if (verb, plural) in state.forbidden:
            return 403, failure(f'{plural} is forbidden: User "sa" cannot {verb} resource "{plural}"', 403)
        if len(rest) == 1:
            return 200, {"kind": "PodList", "items": self._pods(namespace or "", query.get("labelSelector", ""))}
        if verb == "get":
            found = state.objects.get(url.path)
            return (404, failure("not found", 404)) if found is None else (200, self._with_status(found))
        if verb == "delete":
            found = state.objects.pop(url.path, None)
            state.owners.pop(url.path, None)
            return (404, failure("not found", 404)) if found is None else (200, {"kind": "Status", "status": "Success"})
        if namespace is not None and f"/api/v1/namespaces/{namespace}" not in state.objects:
            return 404, failure(f'namespaces "{namespace}" not found', 404)
        if self.headers["Content-Type"] != "application/apply-patch+yaml" or not query.get("fieldManager"):
            return 415, failure("the body of the request was in an unknown format", 415)
        if not dry_run and state.failing_after is not None:
            state.failing_after -= 1
            if state.failing_after < 0:
                return 500, failure("etcdserver: request timed out", 500)
        wanted = json.loads(body)
        if wanted["metadata"]["name"] != rest[1]:
            return 400, failure("the name of the object does not match the name on the URL", 400)
        manager, force = query["fieldManager"], query.get("force") == "true"
        return state.apply(url.path, wanted, manager, force=force, dry_run=dry_run)

    def _proxied(self, namespace: str, rest: list[str], body: bytes) -> tuple[int, Any]:
        """Through to a real engine, as the API server does for a service with a ready pod."""
        if ("create", "services/proxy") in self.state.forbidden:
            return 403, failure('services is forbidden: User "sa" cannot create resource "services/proxy"', 403)
        name = rest[1].partition(":")[0]
        if f"/api/v1/namespaces/{namespace}/services/{name}" not in self.state.objects or self.state.engine_url is None:
            return 503, failure(f'no endpoints available for service "{name}"', 503)
        request = Request(f"{self.state.engine_url}/{'/'.join(rest[3:])}", body, {"content-type": "application/json"})
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)

    def _with_status(self, found: dict[str, Any]) -> dict[str, Any]:
        said = "True" if self.state.ready else "False"
        if found["kind"] == "InferenceService":
            status = {
                "url": f"http://{found['metadata']['name']}.example.com",
                "conditions": [{"type": "Ready", "status": said, "message": None if self.state.ready else "no GPU"}],
            }
            return found | {"status": status}
        if found["kind"] == "Deployment":
            return found | {"status": {"conditions": [{"type": "Available", "status": said}]}}
        return found

    def _pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        name = selector.partition("=")[2]
        made = []
        for path, found in self.state.objects.items():
            if found["kind"] not in ("InferenceService", "Deployment") or f"/namespaces/{namespace}/" not in path:
                continue
            if found["metadata"]["labels"]["crosslogic.ai/deployment"] == name:
                made.append(self._pod(name))
        return made

    def _pod(self, name: str) -> dict[str, Any]:
        if self.state.ready:
            status = {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [{"restartCount": 1, "state": {"running": {}}}],
            }
        else:
            reason = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
            status = {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "message": reason}],
            }
        return {"metadata": {"name": f"{name}-predictor-1"}, "status": status}


@contextmanager
def kubernetes_server() -> Iterator[tuple[str, State]]:
    state = State()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
