"""Metadata services as AWS, Google Cloud and Azure document them, on a local port: what an agent asks is what it gets.

AWS answers only with a session token (IMDSv2), Google only with `Metadata-Flavor: Google`, Azure with `Metadata: true`;
each is strict about that, as the real ones are.
"""

import http.server
import json
import secrets
import threading
from typing import Any


class MetadataServer:
    """One cloud's. `take_away()` is what the cloud does to its spot machines. Use as a context manager."""

    def __init__(self, cloud: str, *, spot: bool = True) -> None:
        self.cloud, self.spot = cloud, spot
        self.taken = False
        self.rebalance = False  # AWS: recommended
        self.tokens: set[str] = set()
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer("GET")

            def do_PUT(self) -> None:
                self._answer("PUT")

            def _answer(self, method: str) -> None:
                outer.asked.append(self.path)
                status, body = outer._reply(method, self.path, {k.lower(): v for k, v in self.headers.items()})
                data = body.encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """The test asserts; nobody reads."""

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """Whoever asked is gone: machines that ask are killed here."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "MetadataServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take_away(self) -> None:
        self.taken = True

    def expire_tokens(self) -> None:
        self.tokens.clear()

    def _reply(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        replies = {"aws": self._aws, "gcp": self._gcp, "azure": self._azure}
        return replies[self.cloud](method, path, headers)

    def _aws(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        if path == "/latest/api/token":
            if method != "PUT" or not headers.get("x-aws-ec2-metadata-token-ttl-seconds", "").isdigit():
                return 400, ""
            self.tokens.add(token := secrets.token_urlsafe(16))
            return 200, token
        if headers.get("x-aws-ec2-metadata-token") not in self.tokens:
            return 401, ""
        action = json.dumps({"action": "terminate", "time": "2026-11-20T20:02:00Z"})
        found = {
            "/latest/meta-data/placement/availability-zone": "ap-south-1b",
            "/latest/meta-data/instance-type": "g6e.xlarge",
            "/latest/meta-data/instance-life-cycle": "spot" if self.spot else "on-demand",
            "/latest/meta-data/spot/instance-action": action if self.taken else None,
            "/latest/meta-data/events/recommendations/rebalance": (
                json.dumps({"noticeTime": "2026-11-20T19:40:00Z"}) if self.rebalance else None
            ),
        }.get(path)
        return (404, "<h1>404 - Not Found</h1>") if found is None else (200, found)

    def _gcp(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        if headers.get("metadata-flavor") != "Google":
            return 403, "missing Metadata-Flavor"
        base = "/computeMetadata/v1/instance/"
        found = {
            "zone": "projects/123/zones/asia-south1-b",
            "machine-type": "projects/123/machineTypes/g2-standard-4",
            "scheduling/preemptible": "TRUE" if self.spot else "FALSE",
            "scheduling/provisioning-model": "SPOT" if self.spot else "STANDARD",
            "preempted": "TRUE" if self.taken else "FALSE",
        }.get(path.removeprefix(base))
        return (404, "") if found is None else (200, found)

    def _azure(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        if headers.get("metadata") != "true" or "api-version=" not in path:
            return 400, '{"error": "Bad request"}'
        if path.startswith("/metadata/instance/compute"):
            priority = "Spot" if self.spot else "Regular"
            compute = {
                "name": "gpu-7",
                "location": "centralindia",
                "zone": "2",
                "vmSize": "NC24ads",
                "priority": priority,
            }
            return 200, json.dumps(compute)
        if path.startswith("/metadata/scheduledevents"):
            event = {
                "EventId": "1",
                "EventType": "Preempt",
                "ResourceType": "VirtualMachine",
                "EventStatus": "Scheduled",
            }
            event |= {"Resources": ["gpu-7"], "NotBefore": "Mon, 19 Sep 2026 18:29:47 GMT"}  # type: ignore[dict-item]
            other = event | {"Resources": ["gpu-8"]}
            return 200, json.dumps({"DocumentIncarnation": 1, "Events": [event] if self.taken else [other]})
        return 404, ""
