"""Every refusal and failure of the edge, as the caller sees it: one table, in OpenAI's error shape.

The body also satisfies Anthropic's shape (`type: "error"` beside `error`), so that both SDKs map it by status.
No message names a node or tells whether another tenant's thing exists.
"""

from typing import Final

import msgspec

from crosslogic.cache.idempotency.service import Problem
from crosslogic.gateway.request import BadRequest, model_not_found
from crosslogic.limits.model import Rejected
from crosslogic.tenancy import scope_check

JSON_HEADER: Final = b"content-type: application/json\r\n"


class Refusal(msgspec.Struct, frozen=True):
    """What the caller is told instead of an answer."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None

    def body(self) -> bytes:
        return msgspec.json.encode({"type": "error", "error": self._error()})

    def event(self) -> bytes:
        """The same as a server-sent event, for a stream that has begun."""
        return b"event: error\ndata: " + self.body() + b"\n\n"

    def chat_event(self) -> bytes:
        """OpenAI's streams carry no event names."""
        return b"data: " + msgspec.json.encode({"error": self._error()}) + b"\n\n"

    def header_lines(self) -> bytes:
        if self.retry_after_s is None:
            return JSON_HEADER
        return JSON_HEADER + b"retry-after: %d\r\n" % self.retry_after_s

    def _error(self) -> dict[str, str | None]:
        return {"message": self.message, "type": self.type, "code": self.code, "param": self.param}


def _refusal(status: int, kind: str, code: str, message: str, retry_after_s: int | None = None) -> Refusal:
    return Refusal(status, kind, code, message, None, retry_after_s)


MISSING_KEY = _refusal(
    401, "authentication_error", "missing_api_key", "you did not provide an API key: send it as 'Authorization: Bearer'"
)
INVALID_KEY = _refusal(401, "authentication_error", "invalid_api_key", "this API key is not valid")
EXPIRED_KEY = _refusal(401, "authentication_error", "expired_api_key", "this API key has expired")
BY_PRINCIPAL_REFUSAL: Final = {
    "tenant_suspended": _refusal(403, "permission_error", "tenant_suspended", "this tenant is suspended"),
    "user_suspended": _refusal(403, "permission_error", "user_suspended", "this user is suspended"),
    "key_suspended": _refusal(403, "permission_error", "key_suspended", "this API key is suspended"),
    "key_revoked": INVALID_KEY,
}
READ_ONLY_KEY = _refusal(403, "permission_error", "read_only_key", "this API key may read, but not run inference")
NOT_FOUND = _refusal(404, "invalid_request_error", "not_found", "there is nothing at this address")
METHOD_NOT_ALLOWED = _refusal(405, "invalid_request_error", "method_not_allowed", "use another HTTP method here")
SERVER_BUSY = _refusal(429, "server_error", "server_busy", "all nodes for this model are busy", 2)
NO_CAPACITY = _refusal(503, "server_error", "no_capacity", "no node can serve this model at present", 5)
UPSTREAM_ERROR = _refusal(502, "server_error", "upstream_error", "the model server failed to answer")
UPSTREAM_TIMEOUT = _refusal(504, "server_error", "upstream_timeout", "the model server did not answer in time")
TRUNCATED = _refusal(502, "server_error", "upstream_error", "the answer was cut short by a failure; it is not complete")
STREAM_TIMEOUT = _refusal(504, "server_error", "upstream_timeout", "the answer stopped arriving; it is not complete")
NOT_RECORDED = _refusal(503, "server_error", "usage_not_recorded", "the answer could not be recorded; try again", 5)
INTERNAL_ERROR = _refusal(500, "server_error", "internal_error", "internal error")
CLIENT_CLOSED = _refusal(499, "client_error", "client_closed", "the caller left")  # for log and metrics only


BY_SCOPE: Final = {
    scope_check.IP_NOT_ALLOWED: INVALID_KEY,  # whoever has a stolen key learns nothing of it
    scope_check.PLAN_WITHOUT_API: _refusal(
        403, "permission_error", scope_check.PLAN_WITHOUT_API, "this tenant's plan does not include the API"
    ),
    scope_check.ENDPOINT_NOT_ALLOWED: _refusal(
        403, "permission_error", scope_check.ENDPOINT_NOT_ALLOWED, "this API key may not use this endpoint"
    ),
    scope_check.MODEL_NOT_ALLOWED: _refusal(
        403, "permission_error", scope_check.MODEL_NOT_ALLOWED, "this API key may not use this model"
    ),
    scope_check.REGION_NOT_ALLOWED: _refusal(
        403, "permission_error", scope_check.REGION_NOT_ALLOWED, "this API key may not use this region"
    ),
}
BY_PROBLEM: Final = {
    Problem.INVALID: _refusal(
        400, "invalid_request_error", Problem.INVALID, "Idempotency-Key must be 1 to 255 ASCII characters"
    ),
    Problem.REUSED: _refusal(
        409, "invalid_request_error", Problem.REUSED, "this Idempotency-Key was used for another request"
    ),
    Problem.IN_USE: _refusal(
        409, "invalid_request_error", Problem.IN_USE, "a request with this Idempotency-Key is still running", 1
    ),
    Problem.NOT_KEPT: _refusal(
        409,
        "invalid_request_error",
        Problem.NOT_KEPT,
        "it was answered, but the answer was too large to keep",
    ),
    Problem.UNSURE: _refusal(
        503, "server_error", Problem.UNSURE, "whether this request has run already cannot be told at present", 1
    ),
}


def busy(retry_after_s: int) -> Refusal:
    """429 for traffic that is shed: no node has room, and nobody may wait longer (architecture document §28)."""
    return msgspec.structs.replace(SERVER_BUSY, retry_after_s=retry_after_s)


def of_bad_request(error: BadRequest) -> Refusal:
    return Refusal(error.status, "invalid_request_error", error.code, str(error), error.param)


def model_refusal(name: str) -> Refusal:
    return of_bad_request(model_not_found(name))


def of_rejection(rejection: Rejected) -> Refusal:
    """429 for a caller over a limit, naming the layer and dimension (architecture document §16).

    When to come back stands in the headers that the limits themselves write.
    """
    limit = f"the {rejection.layer.value} limit on {rejection.dimension.value.replace('_', ' ')}"
    if rejection.too_large:
        message = f"this request alone is larger than {limit} allows; ask for less"
    else:
        message = f"{limit} is reached; try again in {rejection.retry_after_s:.1f} s"
    return _refusal(429, "rate_limit_error", "rate_limit_exceeded", message)
