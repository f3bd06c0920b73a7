"""Environment variables as settings: `CROSSLOGIC_SECTION__NAME`, and the documents' own names.

Invariant: a variable that only looks like ours never stops the program, unless its name has `__` and so can
be meant for nobody else (Kubernetes itself sets `CROSSLOGIC_PORT` beside a service called crosslogic).
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from crosslogic.kernel.errors import ConfigurationError

PREFIX = "CROSSLOGIC_"
Path = tuple[str, ...]

# The documents' names (control-plane overview, "Configuration"; product documentation §20).
ALIASES: dict[str, Path] = {
    "SERVER_HOST": ("server", "host"),
    "SERVER_PORT": ("server", "port"),
    "DATABASE_URL": ("database", "url"),
    "DB_HOST": ("database", "host"),
    "DB_PORT": ("database", "port"),
    "DB_USER": ("database", "user"),
    "DB_PASSWORD": ("database", "password"),
    "DB_NAME": ("database", "name"),
    "REDIS_URL": ("redis", "url"),
    "REDIS_HOST": ("redis", "host"),
    "REDIS_PORT": ("redis", "port"),
    "REDIS_PASSWORD": ("redis", "password"),
    "STRIPE_SECRET_KEY": ("payments", "api_key"),
    "STRIPE_WEBHOOK_SECRET": ("payments", "webhook_secret"),
    "BILLING_EXPORT_INTERVAL": ("billing", "export_interval_s"),
    "BILLING_AGGREGATION_INTERVAL": ("cost_tracking", "aggregation_interval_s"),
    "LOG_LEVEL": ("log", "level"),
    "PROMETHEUS_PORT": ("metrics", "port"),
}
_OF_SERVERS = ("database", "redis")  # sections whose aliases an embedded cloud does not listen to


def environment_entries(
    root: type[BaseModel], environ: Mapping[str, str], *, embedded: bool
) -> dict[Path, tuple[str, Any]]:
    """For each setting that the environment gives: the variable's name and its value. Raises ConfigurationError.

    Empty variables count as absent, as compose files hand on unset ones.
    """
    found: dict[Path, tuple[str, Any]] = {}
    for name, path in ALIASES.items():
        if environ.get(name) and not (embedded and path[0] in _OF_SERVERS):
            found[path] = (name, environ[name])
    for name, (ours, field) in _ours(root, environ):
        found[ours] = (name, _value(name, environ[name], field))
    return found


def variable(path: Path) -> str:
    """The variable that sets `path`."""
    return PREFIX + "__".join(path).upper()


def unknown_variables(root: type[BaseModel], environ: Mapping[str, str]) -> list[str]:
    """Variables that begin like ours and set nothing; the command line's own are not among them."""
    known = {variable(path) for path, _ in walk(root)} | COMMAND_LINE
    return [
        name
        for name in sorted(environ)
        if name.startswith(PREFIX)
        and name not in known
        and not name.startswith(("CROSSLOGIC_TEST_", "CROSSLOGIC_SERVICE_", "CROSSLOGIC_PORT"))
    ]


COMMAND_LINE = frozenset({"CROSSLOGIC_CONFIG", "CROSSLOGIC_URL", "CROSSLOGIC_ADMIN_KEY"})


def walk(root: type[BaseModel], at: Path = ()) -> Iterator[tuple[Path, FieldInfo]]:
    """Every setting that has a name of its own: fields of sections, not of list items."""
    for name, field in root.model_fields.items():
        path = (*at, field.alias or name)
        section = section_of(field)
        if section is not None:
            yield from walk(section, path)
        else:
            yield path, field


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _ours(root: type[BaseModel], environ: Mapping[str, str]) -> Iterator[tuple[str, tuple[Path, FieldInfo]]]:
    known = {variable(path): (path, field) for path, field in walk(root)}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or not value:
            continue
        if name in known:
            yield name, known[name]
        elif "__" in name and not name.startswith("CROSSLOGIC_TEST_"):
            close = get_close_matches(name, known, 1)
            advice = f"did you mean {close[0]}?" if close else "unset it"
            raise ConfigurationError(f"the environment variable {name} names no setting; {advice}")


def _value(name: str, text: str, field: FieldInfo) -> Any:
    """Lists and mappings are written as YAML (or JSON, which is YAML) in one variable."""
    if not any(_is_container(kind) for kind in (field.annotation, *get_args(field.annotation))):
        return text
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigurationError(
            f"the environment variable {name} must hold a list or mapping as YAML or JSON"
        ) from None
    if isinstance(tree, str):  # `a,b` for a plain list
        return [part.strip() for part in tree.split(",")]
    return tree


def _is_container(kind: Any) -> bool:
    return getattr(kind, "__origin__", kind) in (tuple, dict, list)
