"""Reading the YAML file: no name twice, `${VAR}` from the environment, one sentence for whatever is wrong."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from crosslogic.kernel.errors import ConfigurationError

# ${NAME}, ${NAME:-default}, and $${ for a literal ${
_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class _Loader(yaml.SafeLoader):
    """Refuses a name that stands twice in one mapping; plain YAML keeps the last one silently."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key} stands here a second time; remove one", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_document(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """The file as a tree, references expanded. Raises ConfigurationError."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"the configuration file {path} does not exist; give another with --config or CROSSLOGIC_CONFIG"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"the configuration file {path} cannot be read: {reason}") from None
    try:
        tree = yaml.load(text, _Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigurationError(f"{path}{place}: {error.problem or 'this is not YAML'}") from None
    except yaml.YAMLError:
        raise ConfigurationError(f"{path}: this is not YAML; remove control characters") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path}: the file must hold names and values such as `server:`, not a list or text")
    expanded = _expand(tree, environ, (), path)
    assert isinstance(expanded, dict)
    return expanded


def _expand(value: Any, environ: Mapping[str, str], at: tuple[str, ...], path: Path) -> Any:
    if isinstance(value, dict):
        return {str(name): _expand(item, environ, (*at, str(name)), path) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, environ, (*at, str(index)), path) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "${"
        # An empty variable counts as absent, as compose files hand on unset ones.
        found = environ.get(name) or match["default"]
        if found is None:
            raise ConfigurationError(
                f"{path}: {dotted(at)} refers to the environment variable {name}, which is not set; "
                f"set it, or write ${{{name}:-default}}"
            )
        return found

    return _REFERENCE.sub(replaced, value)


def dotted(at: tuple[Any, ...]) -> str:
    """`("nodes", 0, "endpoint")` as `nodes[0].endpoint`."""
    text = ""
    for part in at:
        text += f"[{part}]" if str(part).isdigit() else f".{part}" if text else str(part)
    return text
