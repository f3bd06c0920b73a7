"""Types of single settings: what a YAML value or an environment variable may look like, and how it is read.

Invariant: text is converted only where it says the value exactly (`"8080"`, `5m`, `10MiB`, `true`); nothing is
guessed, so that `port: true` or `pool_size: 2.5` is refused.
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from crosslogic.kernel.durations import SECONDS_PER, duration_s

_BYTES_PER = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"(\d+)\s*([kmg]?i?b)?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")
_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _duration_in(unit: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, str):
            try:
                return float(value)  # a bare number is in the unit that the field's name ends with
            except ValueError:
                return duration_s(value.replace(" ", "")) / SECONDS_PER[unit]
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        return value

    return read


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else value


def _real(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _truth(value: Any) -> Any:
    return _TRUTH.get(value.lower(), value) if isinstance(value, str) else value


def _bytes(value: Any) -> Any:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) * _BYTES_PER[(match[2] or "").lower()]
    return value


def _decimal(value: Any) -> Any:
    """YAML has no decimals: the shortest text that reads back as the float is what the user wrote."""
    if isinstance(value, bool):
        return value
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Seconds = Annotated[float, BeforeValidator(_duration_in("s")), Field(ge=0, allow_inf_nan=False)]
Milliseconds = Annotated[float, BeforeValidator(_duration_in("ms")), Field(ge=0, allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Positive = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Port = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=65535)]
Real = Annotated[float, BeforeValidator(_real), Field(allow_inf_nan=False)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
Money = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, allow_inf_nan=False)]
Directory = Annotated[Path, Field(strict=False)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
list_as_tuple = BeforeValidator(_as_tuple)


class Section(BaseModel):
    """A named group of settings: unknown names are refused, values never change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, validate_default=False
    )
