"""docs/configuration.md is what the settings say today."""

from pathlib import Path

from crosslogic.settings.environment import ALIASES, variable, walk
from crosslogic.settings.model import Settings
from crosslogic.settings.phases import RENAMED
from crosslogic.settings.show import reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run `make docs`"


def test_every_setting_stands_there_with_a_meaning() -> None:
    page = reference()
    for path, field in walk(Settings):
        assert f"`{variable(path)}`" in page
        assert field.description, path


def test_aliases_lead_to_settings() -> None:
    paths = {path for path, _ in walk(Settings)}
    assert set(ALIASES.values()) <= paths
    assert set(RENAMED.values()) <= paths
