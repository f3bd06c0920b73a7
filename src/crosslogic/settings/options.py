"""What `crosslogic up` is told besides settings: things of this one start, not of the installation."""

from pathlib import Path

import msgspec


class UpOptions(msgspec.Struct, frozen=True):
    """`simulated_nodes` are started beside the nodes of the settings."""

    simulated_nodes: int
    ready_file: Path | None = None  # gets {"base_url", "api_key", "admin_key", "models"} once ready
