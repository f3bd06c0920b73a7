"""What a person edited stays edited when the conversation goes on, unless it goes on about just that. Pure."""

from collections.abc import Mapping
from typing import Any

from crosslogic.compass.specification.edit import edit, fields_of
from crosslogic.compass.specification.model import Specification
from crosslogic.kernel.errors import InvalidRequest


def carried(before: Specification, now: Specification, edits: Mapping[str, Any]) -> Specification:
    """`now` with the edits that the last turn did not speak of; `before` is what followed from the turns before it."""
    was, became = fields_of(before), fields_of(now)
    kept = {name: value for name, value in edits.items() if was.get(name) == became.get(name)}
    for name, value in kept.items():
        try:
            now = edit(now, {name: value})
        except InvalidRequest:
            continue  # it fitted what was there; what is now has no such field or value
    return now


def changes_between(before: Specification, after: Specification) -> dict[str, Any]:
    """The fields that differ, as they are afterwards."""
    was, became = fields_of(before), fields_of(after)
    return {name: value for name, value in became.items() if was.get(name) != value and name != "description"}
