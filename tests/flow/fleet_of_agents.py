"""Control, a gateway and agents with simulated engines, each a real process, as a rented fleet runs them."""

import json
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.flow import wire
from tests.flow.clouds import LLAMA, chat
from tests.flow.processes import Program, eventually, run
from tests.flow.workers import dial
from tests.ports import free_port

CHAT = "/v1/chat/completions"


class AgentFleet:
    """Use as a context manager. Nodes fall silent after `dead_after_s`, and report every half second. With `tunnels`
    the gateway has two workers and a tunnel port."""

    def __init__(self, directory: Path, database_url: str, dead_after_s: float = 4.0, *, tunnels: bool = False) -> None:
        self.directory = directory
        self.database_url = database_url
        self._admin_key = secrets.token_urlsafe(32)
        self._programs: list[Program] = []
        self._agent_dirs: list[Path] = []
        gateway, control, self.agent_port = free_port(), free_port(), free_port()
        self.tunnel_port = free_port() if tunnels else None
        self.url, self.control_url = f"http://127.0.0.1:{gateway}", f"http://127.0.0.1:{control}"
        self.env = {
            "CROSSLOGIC_AUTH__ADMIN_KEY": self._admin_key,
            "CROSSLOGIC_CONFIG": str(directory / "crosslogic.yaml"),
            "CROSSLOGIC_URL": self.control_url,
            "CROSSLOGIC_ADMIN_KEY": self._admin_key,
        }
        config = {
            "data_dir": str(directory / "data"),
            "server": {"host": "127.0.0.1", "port": gateway, "drain_s": 5},
            "control": {
                "host": "127.0.0.1",
                "port": control,
                "agent_port": self.agent_port,
                "agent_listen": "127.0.0.1",
            },
            "database": {"url": database_url},
            "fleet": {"heartbeat_interval_s": 0.5, "dead_after_s": dead_after_s},
        }
        if tunnels:
            config["server"] |= {"tunnel_port": self.tunnel_port, "tunnel_listen": "127.0.0.1"}  # type: ignore[operator]
            config["enable_rate_limit"] = False  # over several workers limits want Redis
        (directory / "crosslogic.yaml").write_text(yaml.safe_dump(config))
        headers = {"authorization": f"Bearer {self._admin_key}"}
        self.admin = httpx.Client(base_url=self.control_url, headers=headers, trust_env=False, timeout=10)

    def __enter__(self) -> "AgentFleet":
        try:
            migrated = run("migrate", env=self.env)
            assert migrated.returncode == 0, migrated.stderr
            self.start_control()
            self.gateway = self._start("gateway", "--workers", 1 if self.tunnel_port is None else 2)
            self.admin.post("/admin/orgs", json={"name": "acme"}).raise_for_status()
            self.admin.post("/admin/orgs/acme/environments", json={"name": "prod"}).raise_for_status()
            body = {"org": "acme", "environment": "prod", "name": "first"}
            self.api_key = self.admin.post("/admin/keys", json=body).raise_for_status().json()["key"]
            self.gateway.wait_for(lambda: _answers(f"{self.url}/ready"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self._programs):
            program.kill()
        for directory in self._agent_dirs:
            _kill_engine(directory)
        self.admin.close()

    def start_control(self) -> None:
        self.control = self._start("control")
        self.control.wait_for(lambda: _answers(f"{self.control_url}/health"))

    def token(self, *options: object) -> str:
        """By the command, as an operator makes one."""
        made = run("nodes", "token", "create", *options, env=self.env)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def agent(
        self, name: str, token: str | None, *options: object, engine: tuple[object, ...] = (), env: Any = None
    ) -> Program:
        """Start an agent, with an engine of its own; a second start under the same name goes on where it was."""
        directory = self.directory / name
        if directory not in self._agent_dirs:
            self._agent_dirs.append(directory)
        arguments: list[object] = ["agent", "--control", self.control_url, "--data-dir", directory / "state"]
        arguments += ["--node-id", name, "--engine", "simulate", "--model", LLAMA, "--no-benchmark"]
        arguments += [] if token is None else ["--token", token]
        if "--cloud" not in options:
            arguments += ["--cloud", "local"]
        program = Program([*arguments, *options, "--", "--speedup", "20", *engine], directory, env)
        self._programs.append(program)
        return program

    def engine_pid(self, name: str) -> int:
        return int(json.loads((self.directory / name / "state" / "engine.json").read_text())["pid"])

    def node(self, name: str) -> dict[str, Any] | None:
        answer = self.admin.get(f"/admin/nodes/{name}")
        return answer.json() if answer.status_code == 200 else None

    def status(self, name: str) -> str | None:
        found = self.node(name)
        return None if found is None else str(found["status"])

    def until(self, name: str, status: str | None, timeout_s: float = 30.0) -> None:
        eventually(lambda: self.status(name) == status, timeout_s, 0.05)

    def ask(self, key: str | None = None) -> wire.Reply:
        return wire.ask(self.url, CHAT, chat(max_tokens=4), {"authorization": f"Bearer {key or self.api_key}"})

    def ask_worker(self, worker: int, key: str | None = None) -> wire.Reply:
        """One request that this worker of the gateway answers."""
        conversation = dial(self.url, worker)
        try:
            conversation.send(CHAT, chat(max_tokens=4), {"authorization": f"Bearer {key or self.api_key}"})
            return conversation.rest()
        finally:
            conversation.close()

    def serves(self) -> bool:
        return self.ask().status == 200

    def begin(self, max_tokens: int) -> wire.Conversation:
        """A stream that takes a while."""
        conversation = wire.Conversation(self.url)
        body = chat(max_tokens=max_tokens, stream=True)
        conversation.send(CHAT, body, {"authorization": f"Bearer {self.api_key}"})
        return conversation

    def _start(self, *arguments: object) -> Program:
        program = Program(list(arguments), self.directory, self.env)
        self._programs.append(program)
        return program


def joined(fleet: AgentFleet, name: str, *options: object, ready: Callable[[], bool] | None = None) -> Program:
    """An agent whose node serves."""
    program = fleet.agent(name, fleet.token(), *options)
    program.wait_for(ready or (lambda: fleet.status(name) == "active"))
    return program


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _kill_engine(directory: Path) -> None:
    """An engine outlives an agent that is killed."""
    try:
        os.killpg(json.loads((directory / "state" / "engine.json").read_text())["pid"], signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return
