"""The production shape on one machine: PostgreSQL and a Redis of its own, control, gateway workers, simulated nodes.

Database and Redis can be taken away and given back, for each may be restarted at any time.
"""

import asyncio
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import uvloop
import yaml

from tests.flow import wire, workers
from tests.flow.clouds import LLAMA, QWEN, ProductionCloud
from tests.flow.processes import Program, eventually, run
from tests.ports import free_port
from tests.servers import _redis_program

MODELS = "/v1/models"
PLENTY = {"requests_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000, "concurrency": 100_000}


class Production:
    """Use as a context manager; `cloud` is what runs."""

    cloud: ProductionCloud

    def __init__(self, directory: Path, database_url: str, *, nodes: int = 2, speedup: float = 4.0) -> None:
        self.directory = directory
        self.redis = Redis(directory)
        self.database = Doorway(database_url)
        self._database_url = database_url
        self._programs: list[Program] = []
        self._admin_key = secrets.token_urlsafe(32)
        self._ports = (free_port(), free_port())
        self._models = [LLAMA] * nodes + [QWEN]
        self._node_ports = [free_port() for _ in self._models]
        self._speedup = speedup
        self.config_file = directory / "crosslogic.yaml"
        self.env = {"CROSSLOGIC_AUTH__ADMIN_KEY": self._admin_key, "CROSSLOGIC_CONFIG": str(self.config_file)}
        self.config: dict[str, Any] = {
            "data_dir": str(directory / "data"),
            "server": {"host": "127.0.0.1", "port": self._ports[0], "drain_s": 30},
            "control": {"host": "127.0.0.1", "port": self._ports[1]},
            "database": {"url": self.database.url},
            # Longer than the default: on a busy machine a worker would now and then limit by itself, by its share.
            "redis": {"url": self.redis.url, "timeout_ms": 500},
            "limits": dict.fromkeys(("global", "org", "env", "key"), PLENTY),
            "fleet": {"probe_interval_s": 1.0},
            "nodes": [
                {"endpoint": f"http://127.0.0.1:{port}", "type": "vllm", "models": [model]}
                for model, port in zip(self._models, self._node_ports, strict=True)
            ],
        }

    def __enter__(self) -> "Production":
        try:
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_all(self) -> None:
        self.write_config()
        self.redis.start()
        self.database.open()
        for number, (model, port) in enumerate(zip(self._models, self._node_ports, strict=True)):
            options = ["--port", port, "--model", model, "--speedup", self._speedup, "--seed", number]
            self._programs.append(Program(["simulate", *options], self.directory / f"node-{number}"))
        migrated = run("migrate", env=self.env)
        assert migrated.returncode == 0, migrated.stderr
        control = self._start("control")
        gateway = self._start("gateway", "--workers", 2)
        admin_url = f"http://127.0.0.1:{self._ports[1]}"
        admin = httpx.Client(
            base_url=admin_url, headers={"authorization": f"Bearer {self._admin_key}"}, trust_env=False, timeout=10
        )
        control.wait_for(lambda: _answers(f"{admin_url}/health"))
        admin.post("/admin/orgs", json={"name": "acme"}).raise_for_status()
        admin.post("/admin/orgs/acme/environments", json={"name": "prod"}).raise_for_status()
        made = admin.post("/admin/keys", json={"org": "acme", "environment": "prod", "name": "first"})
        api_key = made.raise_for_status().json()["key"]
        url = f"http://127.0.0.1:{self._ports[0]}"
        self.cloud = ProductionCloud(gateway, control, url, api_key, admin_url, self._admin_key, self._database_url)
        self._wait_until_serving()

    def __exit__(self, *_: object) -> None:
        for program in reversed(self._programs):
            program.kill()
        self.redis.stop()
        self.database.close()

    def write_config(self) -> None:
        # JSON would do, but people write YAML. Nobody reads half a file.
        draft = self.config_file.with_suffix(".part")
        draft.write_text(yaml.safe_dump(self.config))
        draft.replace(self.config_file)

    def restart_gateway(self) -> None:
        """Start the gateway that was stopped or killed."""
        self.cloud.program = self._start("gateway", "--workers", 2)
        self._wait_until_serving()

    def workers(self) -> list[int]:
        """Their process ids."""
        return workers.workers_of(self.cloud.program)

    @contextmanager
    def nodes_paused(self) -> Iterator[None]:
        """Whatever streams go on, none ends meanwhile, for the nodes do nothing."""
        nodes = self._programs[: len(self._models)]
        for node in nodes:
            node.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for node in nodes:
                node.process.send_signal(signal.SIGCONT)

    def _start(self, *arguments: object) -> Program:
        program = Program(list(arguments), self.directory, self.env)
        self._programs.append(program)
        return program

    def _wait_until_serving(self) -> None:
        def serving() -> bool:
            try:
                listed = self.cloud.ask(path="/v1/models", method="GET", timeout_s=2)
            except OSError:
                return False
            return listed.status == 200 and {m["id"] for m in listed.json["data"]} == set(self._models)

        self.cloud.program.wait_for(serving)
        eventually(lambda: len(self.workers()) == 2)
        for pid in self.workers():
            self.dial(pid).close()

    def dial(self, worker: int) -> wire.Conversation:
        """A connection to this worker, as soon as it takes one."""
        return workers.dial(self.cloud.url, worker)

    def ask_worker(self, worker: int, body: object = None, path: str = "", **more: Any) -> wire.Reply:
        """One request that this worker answers."""
        conversation = self.dial(worker)
        try:
            conversation.send(path, body, self.cloud.key | more.pop("headers", {}), **more)
            return conversation.rest()
        finally:
            conversation.close()

    @contextmanager
    def asking_each(self) -> Iterator[Callable[..., list[int]]]:
        """A question to each worker, over connections that are open already: dialling takes time. Gives statuses."""
        conversations = [self.dial(pid) for pid in self.workers()]

        def ask(path: str, body: object = None, headers: Mapping[str, str] | None = None, method: str = "GET") -> Any:
            found = []
            for conversation in conversations:
                conversation.received = b""
                conversation.send(path, body, headers or self.cloud.key, method)
                found.append(conversation.rest().status)
            return found

        yield ask
        for conversation in conversations:
            conversation.close()

    def until_known(self, headers: Mapping[str, str]) -> None:
        """Wait until each worker serves the key of these headers."""
        for pid in self.workers():
            eventually(lambda pid=pid: self.ask_worker(pid, None, MODELS, headers=headers, method="GET").status == 200)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


class Redis:
    """A Redis server of this test alone, always at the same port."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        arguments = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._directory), "--save", ""]
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([_redis_program(), *arguments], stdin=subprocess.DEVNULL, stdout=log)
        eventually(self._listens)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


class Doorway:
    """A way to a shared server that can be shut: new connections are refused then, and those that are there are cut."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._port = free_port()
        user = f"{parts.username}@" if parts.username else ""
        self.url = urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self._port}"))
        self._loop = uvloop.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def open(self) -> None:
        async def listen() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(5)

    def shut(self) -> None:
        async def stop() -> None:
            if self._server is not None:
                self._server.close()
            for writer in self._writers:
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(5)

    def close(self) -> None:
        self.shut()
        asyncio.run_coroutine_threadsafe(_the_others_end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        away_reader, away_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, away_writer}
        try:
            await asyncio.gather(_pump(reader, away_writer), _pump(away_reader, writer))
        finally:
            self._writers -= {writer, away_writer}
            writer.close()
            away_writer.close()


async def _the_others_end() -> None:
    """Wait until the connections that were cut have noticed it."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=2)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if not writer.is_closing():
            writer.write_eof()
    except OSError:
        writer.transport.abort()
