"""The error tree of the product. It knows no HTTP: `gateway/errors.py` and `api/errors.py` map it once.

CrossLogicError
├── ConfigurationError   a setting is wrong; the message says what to do (command line: exit code 2)
├── Conflict             the change contradicts what is stored
├── NotFound             unknown, or another tenant's: the two are never told apart
├── Unauthenticated      no valid key
├── Forbidden            a valid key that may not do this
├── InvalidRequest       the caller's input is wrong
└── Unavailable          a dependency does not answer; trying again later may help
"""


class CrossLogicError(Exception):
    """Root of all errors that this product raises on purpose. `str(error)` is fit to be shown."""


class ConfigurationError(CrossLogicError):
    """A setting is wrong or a needed resource is missing; the message is one sentence that says what to do."""


class Conflict(CrossLogicError):
    """The change contradicts what is stored (a taken name, a second registration)."""


class NotFound(CrossLogicError):
    """The thing does not exist, or belongs to somebody else."""


class Unauthenticated(CrossLogicError):
    """There is no valid key."""


class Forbidden(CrossLogicError):
    """The key is valid, but may not do this. `code` says why, for programs."""

    def __init__(self, message: str, *, code: str = "forbidden") -> None:
        super().__init__(message)
        self.code = code


class InvalidRequest(CrossLogicError):
    """The caller's input is wrong. `param` names the field."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Unavailable(CrossLogicError):
    """A dependency does not answer."""
