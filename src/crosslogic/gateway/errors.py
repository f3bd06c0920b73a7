"""Every refusal and failure of the edge, as the caller sees it: one table, in OpenAI's error shape.

The body also satisfies Anthropic's shape (`type: "error"` beside `error`), so that both SDKs map it by status.
No message names a node or tells whether another tenant's thing exists.
"""

from typing import Final

import msgspec

from crosslogic.cache.idempotency.service import Problem
from crosslogic.gateway.fitting import Exceeded
from crosslogic.gateway.request import BadRequest, model_not_found
from crosslogic.limits.model import Dimension, Layer, Rejected
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
    limit: tuple[str, str] | None = None  # layer and dimension of the ceiling that refuses

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
        told = {"message": self.message, "type": self.type, "code": self.code, "param": self.param}
        if self.limit is not None:
            told["layer"], told["dimension"] = self.limit
        return told


def _refusal(status: int, kind: str, code: str, message: str, retry_after_s: int | None = None) -> Refusal:
    return Refusal(status, kind, code, message, None, retry_after_s)


class _Error(msgspec.Struct):
    message: str
    type: str | None = None
    code: int | str | None = None
    status: int | None = None
    param: str | None = None


class _ErrorEvent(msgspec.Struct):
    error: _Error


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
REGION_DOWN = _refusal(
    503, "server_error", "region_unavailable", "your region is down, and few of its requests may be served elsewhere", 5
)
UPSTREAM_ERROR = _refusal(502, "server_error", "upstream_error", "the model server failed to answer")
UPSTREAM_TIMEOUT = _refusal(504, "server_error", "upstream_timeout", "the model server did not answer in time")
TRUNCATED = _refusal(502, "server_error", "upstream_error", "the answer was cut short by a failure; it is not complete")
STREAM_TIMEOUT = _refusal(504, "server_error", "upstream_timeout", "the answer stopped arriving; it is not complete")
TENANTS_UNKNOWN = _refusal(
    503, "server_error", "tenants_unknown", "who may call cannot be told at present; try again later", 5
)
NOT_RECORDED = _refusal(503, "server_error", "usage_not_recorded", "the answer could not be recorded; try again", 5)
INTERNAL_ERROR = _refusal(500, "server_error", "internal_error", "internal error")
# 410: clients do not try it again by themselves, as they would after 409 or 429.
REMOVED_FROM_QUEUE = _refusal(
    410, "invalid_request_error", "removed_from_queue", "this request was taken out of the queue before its turn"
)
CLIENT_CLOSED = _refusal(499, "client_error", "client_closed", "the caller left")  # for log and metrics only


BY_SCOPE: Final = {
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


def too_many_bad_keys(retry_after_s: int) -> Refusal:
    """429 for one more bad key from an address that has sent too many; a key that is known still works there."""
    message = "too many requests with invalid API keys came from this address; a valid key is not affected"
    return _refusal(429, "rate_limit_error", "too_many_bad_keys", message, retry_after_s)


def of_bad_request(error: BadRequest) -> Refusal:
    return Refusal(error.status, "invalid_request_error", error.code, str(error), error.param)


def of_error_event(data: bytes) -> Refusal | None:
    """What an engine says in a stream's first event where it might have said it by status, if it is about the caller.

    None for what is the engine's own trouble, or might go better elsewhere.
    """
    try:
        error = msgspec.json.decode(data, type=_ErrorEvent).error
        status = int(error.code or error.status or 0)
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None
    if status not in (400, 413, 415, 422):
        return None
    return Refusal(status, error.type or "invalid_request_error", str(error.code), error.message, error.param)


def model_refusal(name: str) -> Refusal:
    return of_bad_request(model_not_found(name))


def no_capacity(retry_after_s: int) -> Refusal:
    """503 where every node asked to be left alone for a while."""
    return msgspec.structs.replace(NO_CAPACITY, retry_after_s=retry_after_s)


def of_rejection(rejection: Rejected) -> Refusal:
    """429 for a caller that is too quick, 403 for one whose quota is used up (architecture document §16).

    Layer and dimension are named. When to come back stands in the headers that the limits themselves write.
    """
    limit = f"the {shown_layer(rejection.layer)} limit on {_words(rejection.dimension)}"
    if rejection.too_large:
        message = f"this request alone is larger than {limit} allows; ask for less"
    else:
        message = f"{limit} is reached; try again in {rejection.retry_after_s:.1f} s"
    return _over(rejection.layer, rejection.dimension, message, quota=rejection.quota)


def of_excess(excess: Exceeded) -> Refusal:
    """403 for a request that is larger than any of its caller's may be: waiting does not help."""
    whose, what = shown_layer(excess.layer), _words(excess.dimension)
    message = f"this request is larger than the {whose} limit of {excess.most} on {what} allows; ask for less"
    return _over(excess.layer, excess.dimension, message, quota=True)


def shown_layer(layer: Layer) -> str:
    """Whose limit, as far as it is the caller's business: what others use of the platform is not."""
    return layer.value if layer in (Layer.ORG, Layer.ENV, Layer.KEY) else "platform"


def _over(layer: Layer, dimension: Dimension, message: str, *, quota: bool) -> Refusal:
    limit = (shown_layer(layer), dimension.value)
    if quota:
        return Refusal(403, "permission_error", "quota_exceeded", message, limit=limit)
    return Refusal(429, "rate_limit_error", "rate_limit_exceeded", message, limit=limit)


def _words(dimension: Dimension) -> str:
    return dimension.value.replace("_", " ")
