"""The error tree and everything else that can go wrong in a route, as HTTP: one table, in OpenAI's error shape.

Invariant: every answer that is not a success has the body `{"error": {"message", "type", "code", "param"}}`, and
nothing of a failure that we did not foresee but the request id reaches the caller.
"""

import logging
import time
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import exc as database
from starlette.exceptions import HTTPException

from crosslogic.api.services import services_of
from crosslogic.kernel import errors

RETRY_AFTER_S = 2

_log = logging.getLogger(__name__)

_OF_ERROR: Final = {
    errors.Unauthenticated: (401, "authentication_error", "invalid_api_key"),
    errors.Forbidden: (403, "permission_error", "forbidden"),
    errors.NotFound: (404, "invalid_request_error", "not_found"),
    errors.Conflict: (409, "invalid_request_error", "conflict"),
    errors.InvalidRequest: (400, "invalid_request_error", "invalid_request"),
    errors.ConfigurationError: (500, "server_error", "configuration_error"),
    errors.Unavailable: (503, "server_error", "unavailable"),
    errors.CrossLogicError: (500, "server_error", "internal_error"),
}
_OF_STATUS: Final = {
    400: ("invalid_request", "the body is no JSON"),
    404: ("not_found", "there is nothing at this address"),
    405: ("method_not_allowed", None),
}
# What a database that is there says of a statement of ours that is wrong: no reason to try again.
_OUR_FAULT: Final = (
    database.IntegrityError,
    database.ProgrammingError,
    database.DataError,
    database.NotSupportedError,
)


def install(app: FastAPI) -> None:
    """Make every error of the app's routes answer as this module says."""
    handlers: dict[type[Exception], Any] = {
        errors.CrossLogicError: _of_tree,
        RequestValidationError: _of_validation,
        HTTPException: _of_framework,
        database.DBAPIError: _of_database,
        database.TimeoutError: _of_outage,
        OSError: _of_outage,
        Exception: _of_surprise,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def error_response(
    status: int, kind: str, code: str, message: str, param: str | None = None, **headers: str
) -> JSONResponse:
    body = {"error": {"message": message, "type": kind, "code": code, "param": param}}
    return JSONResponse(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


async def _of_tree(request: Request, error: errors.CrossLogicError) -> JSONResponse:
    if isinstance(error, errors.Unauthenticated):
        return _of_stranger(request, error)
    status, kind, code = next(_OF_ERROR[cls] for cls in type(error).__mro__ if cls in _OF_ERROR)
    code = getattr(error, "code", code)
    headers = {"retry_after": str(RETRY_AFTER_S)} if status == 503 else {}
    return error_response(status, kind, code, str(error), getattr(error, "param", None), **headers)


def _of_stranger(request: Request, error: errors.Unauthenticated) -> JSONResponse:
    """401, or 429 to an address that has sent too many bad keys; good ones are never asked about."""
    strangers = services_of(request).strangers
    address, now_s = request.client.host if request.client else "", time.monotonic()
    wait_s = strangers.wait_s(address, now_s)
    if wait_s is not None:
        message = "too many bad keys have come from this address; try again later"
        return error_response(429, "rate_limit_error", "too_many_bad_keys", message, retry_after=str(wait_s))
    strangers.failed(address, now_s)
    status, kind, code = _OF_ERROR[errors.Unauthenticated]
    return error_response(status, kind, code, str(error), www_authenticate="Bearer")


async def _of_validation(_request: Request, error: RequestValidationError) -> JSONResponse:
    """The first thing that is wrong. What was sent is not repeated: it may hold a secret."""
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
    message = f"{param}: {first['msg']}" if param else str(first["msg"])
    return error_response(400, "invalid_request_error", "invalid_request", message, param or None)


async def _of_framework(_request: Request, error: HTTPException) -> JSONResponse:
    code, message = _OF_STATUS.get(error.status_code, ("http_error", None))
    headers = {name.replace("-", "_"): value for name, value in (error.headers or {}).items()}
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    return error_response(error.status_code, kind, code, message or str(error.detail), **headers)


async def _of_database(request: Request, error: database.DBAPIError) -> JSONResponse:
    # SQLite has one class of error for a wrong statement and for a file that cannot be read.
    wrong_statement = getattr(error.orig, "sqlite_errorname", None) == "SQLITE_ERROR"
    if wrong_statement or isinstance(error, _OUR_FAULT):
        return await _of_surprise(request, error)
    return await _of_outage(request, error)


async def _of_outage(request: Request, error: Exception) -> JSONResponse:
    _log.warning("request %s: no database (%s)", _request_id(request), type(error).__name__)
    message = "the database does not answer; try again"
    return error_response(503, "server_error", "unavailable", message, retry_after=str(RETRY_AFTER_S))


async def _of_surprise(request: Request, error: Exception) -> JSONResponse:
    request_id = _request_id(request)
    _log.error("request %s failed", request_id, exc_info=error)
    # Starlette calls this outside of all middleware, so the id is put into the headers here.
    return error_response(500, "server_error", "internal_error", "internal error", x_request_id=request_id)


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", "-"))
