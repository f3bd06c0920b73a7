"""Layers become settings: flags over environment over file over defaults.

Invariant: every mistake names the place where it is written.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from crosslogic.settings.document import dotted, read_document
from crosslogic.settings.environment import environment_entries
from crosslogic.settings.mistakes import InvalidSettings, sentences
from crosslogic.settings.model import Settings
from crosslogic.settings.phases import translate
from crosslogic.settings.source import SettingsSource

Path = tuple[str, ...]

# Two ways to say one thing: a stronger layer that speaks of the one silences a weaker layer's other.
_EITHER_OR = (("database", "url", "host"), ("redis", "url", "host"))


class _Layers:
    """A growing tree, and for each value the place where it was written."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.places: dict[Path, str] = {}

    def lay(self, tree: Mapping[str, Any], places: Mapping[Path, str]) -> None:
        for section, one, other in _EITHER_OR:
            above, below = tree.get(section), self.tree.get(section)
            if isinstance(above, dict) and isinstance(below, dict):
                for said, silenced in ((one, other), (other, one)):
                    if said in above and silenced not in above:
                        below.pop(silenced, None)
        self._merge(self.tree, tree, places, ())

    def _merge(self, into: dict[str, Any], tree: Mapping[str, Any], places: Mapping[Path, str], at: Path) -> None:
        for name, value in tree.items():
            path = (*at, name)
            if isinstance(value, dict) and isinstance(into.get(name), dict):
                self._merge(into[name], value, places, path)
                continue
            into[name] = {**value} if isinstance(value, dict) else value
            for old in [known for known in self.places if known[: len(path)] == path]:
                del self.places[old]
            self.places.update({p: text for p, text in places.items() if p[: len(path)] == path})


def load_settings(source: SettingsSource) -> Settings:
    """Read and check all layers. Raises ConfigurationError, with every mistake in `InvalidSettings.mistakes`."""
    layers = _Layers()
    layers.lay(source.defaults, _paths(source.defaults, "default of this command"))
    if source.path is not None:
        file = str(source.path)
        tree, written = translate(read_document(source.path, source.environ), file)
        places = _paths(tree, file)
        places.update({ours: f"{file}: {dotted(theirs)}" for ours, theirs in written.items()})
        layers.lay(tree, places)
        layers.places[()] = file  # for mistakes that no single setting has made
    entries = environment_entries(Settings, source.environ, embedded=source.embedded)
    for path, (name, value) in entries.items():
        # Of variables, too, a URL says more than its parts.
        if path[1:] == ("host",) and (path[0], "url") in entries:
            continue
        layers.lay(_nested(path, value), {path: f"environment variable {name}"})
    layers.lay(source.flags, _paths(source.flags, "command line"))
    try:
        settings = Settings.model_validate(layers.tree)
    except ValidationError as error:
        raise InvalidSettings(sentences(error, Settings, layers.tree, layers.places)) from None
    settings._source = source
    return settings


def _nested(path: Path, value: Any) -> dict[str, Any]:
    tree: Any = value
    for name in reversed(path):
        tree = {name: tree}
    assert isinstance(tree, dict)
    return tree


def _paths(tree: Mapping[str, Any], where: str, at: Path = ()) -> dict[Path, str]:
    """A place for every name in `tree`; list items are found through their list."""
    places: dict[Path, str] = {}
    for name, value in tree.items():
        path = (*at, str(name))
        places[path] = f"{where}: {dotted(path)}"
        if isinstance(value, dict):
            places.update(_paths(value, where, path))
    return places
