"""The configuration file as an option, and the settings that it leads to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from crosslogic.settings import Settings, SettingsSource, load_settings

ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="CROSSLOGIC_CONFIG", help="Configuration file (YAML).")
]


def read_settings(
    config: Path | None,
    *,
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    embedded: bool = False,
) -> Settings:
    """The settings of this process. Raises ConfigurationError."""
    return load_settings(
        SettingsSource(
            path=config,
            environ=dict(os.environ),
            flags=flags or {},
            defaults=defaults or {},
            embedded=embedded,
        )
    )
