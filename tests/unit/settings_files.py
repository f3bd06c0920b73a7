"""Configuration files for the tests of settings and command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosslogic.settings import Settings, SettingsSource, load_settings


def write(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(text, "utf-8")
    return path


def settings_of(directory: Path, text: str = "", environ: Mapping[str, str] | None = None, **more: Any) -> Settings:
    return load_settings(SettingsSource(write(directory, text), environ or {}, **more))
