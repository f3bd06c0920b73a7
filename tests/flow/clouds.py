"""A running cloud as tests see it: its callers' side, its operators' side, its nodes and its ledger."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tests.flow import wire
from tests.flow.processes import Program, eventually

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
QWEN = "Qwen/Qwen2.5-7B-Instruct"
CHAT = "/v1/chat/completions"

Row = dict[str, Any]
Command = Callable[..., Any]


def chat(content: str = "Hello", model: str = LLAMA, **more: object) -> dict[str, object]:
    """The body of a chat request; simulated answers are as long as `max_tokens` lets them be."""
    return {"model": model, "messages": [{"role": "user", "content": content}], "ignore_eos": True} | more


class Cloud:
    """Everything that both shapes of the product have."""

    def __init__(self, program: Program, url: str, api_key: str, admin_url: str, admin_key: str) -> None:
        self.program = program
        self.url = url  # without /v1
        self.api_key = api_key
        self.key = {"authorization": f"Bearer {api_key}"}
        self.admin = httpx.Client(
            base_url=admin_url, headers={"authorization": f"Bearer {admin_key}"}, timeout=10, trust_env=False
        )

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def ask(self, body: object = None, path: str = CHAT, **more: Any) -> wire.Reply:
        """One request with the cloud's key; `headers` come on top."""
        headers = self.key | more.pop("headers", {})
        return wire.ask(self.url, path, body, headers, **more)

    def begin(self, body: object, path: str = CHAT, headers: wire.Headers | None = None) -> wire.Conversation:
        """Send a request and leave the answer to the caller."""
        conversation = wire.Conversation(self.url)
        conversation.send(path, body, self.key | dict(headers or {}))
        return conversation

    # -- nodes

    def nodes(self, model: str | None = None) -> list[Row]:
        found: list[Row] = self.admin.get("/admin/nodes").raise_for_status().json()["data"]
        return [node for node in found if model is None or model in node["model_list"]]

    def running(self, model: str = LLAMA) -> float:
        """Sequences that the model's nodes work on, by their own account."""
        return sum(node_metric(node["endpoint_url"], "num_requests_running") for node in self.nodes(model))

    # -- logs and ledger

    def access(self, request_id: str) -> Row:
        """The access-log line of a request."""

        def find() -> Row | None:
            for line in self.program.log.read_text().splitlines():
                if request_id in line and '"access"' in line:
                    found: Row = json.loads(line)
                    return found
            return None

        return eventually(find)

    def rows(self) -> list[Row]:
        """The whole ledger, oldest first."""
        raise NotImplementedError

    def known_rows(self, model: str = LLAMA) -> set[str]:
        """The requests in the ledger, once all that ended by now are there."""
        self.row(self.ask(chat(model=model, max_tokens=1)).headers["x-request-id"])
        return {row["request_id"] for row in self.rows()}

    def new_row(self, known: set[str]) -> Row:
        """The one row that has come since `known_rows`."""
        (row,) = eventually(lambda: [row for row in self.rows() if row["request_id"] not in known])
        return row

    def row(self, request_id: str) -> Row:
        """The ledger's row of a request, once it is there."""
        return eventually(lambda: next((row for row in self.rows() if row["request_id"] == request_id), None))


class EmbeddedCloud(Cloud):
    """`crosslogic up`."""

    def __init__(self, program: Program, ready_file: Path, data_dir: Path) -> None:
        program.wait_for(ready_file.exists)
        ready = json.loads(ready_file.read_text())
        self.ready = ready
        self.data_dir = data_dir
        url = ready["base_url"].removesuffix("/v1")
        super().__init__(program, url, ready["api_key"], url, ready["admin_key"])

    def rows(self) -> list[Row]:
        with sqlite3.connect(f"file:{self.data_dir / 'crosslogic.db'}?mode=ro", uri=True, timeout=5) as database:
            database.row_factory = sqlite3.Row
            rows = database.execute("SELECT * FROM usage_records ORDER BY timestamp").fetchall()
        database.close()
        return [dict(row) for row in rows]


class ProductionCloud(Cloud):
    """`crosslogic control` and `crosslogic gateway` over PostgreSQL and Redis."""

    def __init__(
        self, gateway: Program, control: Program, url: str, api_key: str, admin_url: str, admin_key: str, database: str
    ) -> None:
        super().__init__(gateway, url, api_key, admin_url, admin_key)
        self.control = control
        self.database_url = database

    def rows(self) -> list[Row]:
        return [dict(row) for row in query(self.database_url, "SELECT * FROM usage_records ORDER BY timestamp")]


def query(database_url: str, statement: str) -> list[asyncpg.Record]:
    """Rows from PostgreSQL, for tests with and without an event loop of their own."""

    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(database_url)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, fetch()).result()


def node_metric(node_url: str, name: str) -> float:
    """Sum of a vLLM metric's samples on a node."""
    text = httpx.get(f"{node_url}/metrics", trust_env=False).text
    return sum(float(value) for value in re.findall(rf"^vllm:{name}(?:_total)?{{.*}} (\S+)$", text, re.MULTILINE))


def fail_next(node_url: str, fault: str, count: int = 1) -> None:
    """Have a simulated node fail its next requests."""
    httpx.post(f"{node_url}/admin/faults", json={"fault": fault, "count": count}, trust_env=False).raise_for_status()
