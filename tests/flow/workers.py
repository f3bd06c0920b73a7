"""The workers of a gateway, one by one: who accepts a connection is the kernel's choice, so one dials until it fits."""

import os
import socket
from pathlib import Path

from tests.flow.processes import Program, eventually
from tests.flow.wire import Conversation


def workers_of(gateway: Program) -> list[int]:
    """Process ids of the workers; other children (multiprocessing's tracker) serve nothing."""
    return [pid for pid in gateway.children() if "spawn_main" in _command_line(pid)]


def dial(url: str, worker: int) -> Conversation:
    """A connection to this worker, as soon as it takes one."""
    return eventually(lambda: _connection_to(url, worker), 20)


def _connection_to(url: str, worker: int) -> Conversation | None:
    """A connection that this worker has accepted; None when others took all that were tried."""
    tried: list[Conversation] = []
    try:
        for _ in range(40):
            conversation = Conversation(url)
            tried.append(conversation)
            conversation.send("/health", method="GET")
            if conversation.rest().status == 200 and _holds(worker, conversation.socket):
                conversation.received = b""
                tried.remove(conversation)
                return conversation
    except OSError:
        return None
    finally:
        for other in tried:
            other.close()
    return None


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _holds(pid: int, client: socket.socket) -> bool:
    """Whether the other end of the client's connection is a socket of this process."""
    port = client.getsockname()[1]
    entries = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    nodes = {f"socket:[{entry[9]}]" for entry in entries if entry[2].endswith(f":{port:04X}")}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(descriptor) in nodes:
                return True
        except OSError:
            continue
    return False
