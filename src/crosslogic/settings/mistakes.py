"""What pydantic found wrong, as sentences that say where it is written and what to do.

Invariant: no sentence repeats the value of a secret.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings.document import dotted

Path = tuple[str, ...]
_SHOWN_LENGTH = 40
# Where pydantic speaks of Python, we speak of YAML.
_WISHES = {
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must hold names and values",
    "model_type": "must hold names and values",
    "model_attributes_type": "must hold names and values",
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "is_instance_of": "must be a number",
}
_NOTHING = object()


class InvalidSettings(ConfigurationError):
    """All that is wrong with the settings; the message is the first mistake."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        more = len(mistakes) - 1
        tail = f" ({more} more: run `crosslogic config check`)" if more else ""
        super().__init__(mistakes[0] + tail)
        self.mistakes = mistakes


def sentences(
    error: ValidationError, root: type[BaseModel], tree: Mapping[str, Any], places: Mapping[Path, str]
) -> tuple[str, ...]:
    """One sentence for each mistake. `places` says, for the paths that were set, where they are written."""
    return tuple(_sentence(detail, root, tree, places) for detail in error.errors(include_url=False))


def _sentence(detail: ErrorDetails, root: type[BaseModel], tree: Mapping[str, Any], places: Mapping[Path, str]) -> str:
    path = tuple(str(part) for part in detail["loc"])
    place = _place(path, places)
    if detail["type"] == "extra_forbidden":
        close = get_close_matches(path[-1], _names(root, path[:-1]), 1)
        advice = f"did you mean {dotted((*path[:-1], close[0]))}?" if close else "remove it"
        return f"{place} is no setting; {advice}"
    if detail["type"] == "missing":
        return f"{place} is missing; set it"
    wish = _WISHES.get(detail["type"]) or _plain(detail["msg"])
    if detail["type"] == "value_error" and not wish.startswith("must"):
        return f"{place}: {wish}" if place else wish
    value = _at(tree, path)
    if value is None or isinstance(value, dict | list) or _secret(root, path):
        return f"{place} {wish}"
    shown = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{place} is {shown[:_SHOWN_LENGTH]}, but {wish}"


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should be", "must be").replace("Input should", "must")


def _place(path: Path, places: Mapping[Path, str]) -> str:
    """Where the user wrote `path`: the longest part of it that is known, and the rest in our names."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            rest = dotted(path[length:])
            return places[path[:length]] + (rest if rest.startswith("[") or not rest else f".{rest}")
    base = places.get((), "")
    return f"{base}: {dotted(path)}" if base and path else base or dotted(path)


def _names(root: type[BaseModel], path: Path) -> list[str]:
    section = _section(root, path)
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _section(root: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model that describes `path`, through list items and mappings."""
    kind: Any = root
    for part in path:
        model = _model_in(kind)
        if model is None:
            return None
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        # not a field of the model: an index or key of the container that holds it
        kind = model if field is None else field.annotation
    return _model_in(kind)


def _model_in(kind: Any) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((model for argument in get_args(kind) if (model := _model_in(argument))), None)


def _secret(root: type[BaseModel], path: Path) -> bool:
    section = _section(root, path[:-1])
    field = section.model_fields.get(path[-1]) if section else None
    # A node's endpoint may hold a password, which is refused but must not be shown.
    return path[-1] == "endpoint" or (
        field is not None and SecretStr in (field.annotation, *get_args(field.annotation))
    )


def _at(tree: Any, path: Path) -> Any:
    for part in path:
        if isinstance(tree, dict):
            tree = tree.get(part, _NOTHING)
        elif isinstance(tree, list | tuple) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
        if tree is _NOTHING:
            return None
    return tree
