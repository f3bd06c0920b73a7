"""Where settings come from: file, environment, flags. A plain value, so that a worker process can load them again."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class SettingsSource:
    """The four layers, strongest first: `flags`, `environ`, the file at `path`, `defaults` of the command.

    `flags` and `defaults` are trees like the file. `embedded` leaves out the documents' names for database
    and Redis (`DB_HOST`, `REDIS_HOST`, …): on a developer's machine they mostly belong to another program.
    """

    path: Path | None = None
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)  # holds secrets
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    embedded: bool = False
