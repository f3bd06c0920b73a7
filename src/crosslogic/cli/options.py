"""Options that several commands share, and the settings that they lead to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from crosslogic.settings import Settings, SettingsSource, load_settings

ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="CROSSLOGIC_CONFIG", help="Configuration file (YAML).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


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


def given(**values: Any) -> dict[str, Any]:
    """Those of the flags that were given, so that an absent flag does not hide a setting."""
    return {name: value for name, value in values.items() if value is not None}
