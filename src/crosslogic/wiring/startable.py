"""What would stop a start: settings that are well-formed each by itself, and cannot be worked with together."""

from collections.abc import Callable
from typing import Any

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings.model import Settings
from crosslogic.wiring.coordination import check_coordinator
from crosslogic.wiring.invoicing import invoicing_terms
from crosslogic.wiring.payments import check_payments


def mistakes(settings: Settings) -> tuple[str, ...]:
    """In the words of the start that they would stop. Opens and asks nothing."""
    return _said_by(settings, invoicing_terms, check_coordinator)


def missing(settings: Settings) -> tuple[str, ...]:
    """Secrets that control does not start without; they may well be kept on its machine alone."""
    return tuple(f"control does not start yet: {said}" for said in _said_by(settings, check_payments))


def _said_by(settings: Settings, *checks: Callable[[Settings], Any]) -> tuple[str, ...]:
    found = []
    for check in checks:
        try:
            check(settings)
        except ConfigurationError as error:
            found.append(str(error))
    return tuple(found)
