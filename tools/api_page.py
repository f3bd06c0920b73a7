"""The page docs/api.md: what callers and operators can ask, from the tables and routes themselves."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from crosslogic.api.app import create_app
from crosslogic.api.services import ApiServices
from crosslogic.gateway import errors
from crosslogic.gateway.endpoints import ENDPOINTS
from crosslogic.gateway.errors import Refusal

_HEAD = """# API

<!-- Written by `make docs` from the code; do not edit. -->

## For callers

The base URL is `http://HOST:PORT/v1`; the same stands under `/{org}/{environment}/{model}/v1/…`, where the path names
tenant and model. Send the key as `Authorization: Bearer …` (or `x-api-key`). Bodies and answers are those of the
engine that serves the model; what is unknown to us passes through untouched.

"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD, _endpoints(), _headers(), _errors(), _management()]
    return "".join(parts).rstrip() + "\n"


def _endpoints() -> str:
    lines = ["| endpoint | prompt in | longest answer | streams |\n", "| --- | --- | --- | --- |\n"]
    for endpoint in ENDPOINTS:
        longest = " or ".join(f"`{name}`" for name in endpoint.max_tokens_fields) or "-"
        streams = "yes" if endpoint.streams else "no"
        lines.append(f"| `POST {endpoint.path}` | `{endpoint.prompt_field}` | {longest} | {streams} |\n")
    lines.append("| `GET /v1/models`, `GET /v1/models/{id}` | | | |\n\n")
    return "".join(lines)


def _headers() -> str:
    return """### Headers

| request | |
| --- | --- |
| `X-Request-Id` | up to 128 letters, digits, `-`, `_`, `.`: comes back, and stands in log and usage record |
| `Idempotency-Key` | a repeat joins the running request or gets its answer, and is billed once ([cache](cache.md)) |
| `x-cache` | `use`, `refresh` or `no-store`, where `enable_caching` is on ([cache](cache.md)) |

| answer | |
| --- | --- |
| `x-request-id` | the caller's, else ours |
| `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` | of the tightest layer |
| `retry-after` | with 429 and 503, and of a limit `retry-after-ms`: who is alone and waits that long is admitted |
| `x-should-retry: false` | waiting does not help: this request alone is too large |

A stream that waits for a place on a node for more than a second gets comments: `: queued position=2 …`.

"""


def _refusals() -> Iterator[Refusal]:
    found = [value for value in vars(errors).values() if isinstance(value, Refusal)]
    for table in (errors.BY_PRINCIPAL_REFUSAL, errors.BY_SCOPE, errors.BY_PROBLEM):
        found += table.values()
    seen: set[tuple[int, str]] = set()
    for refusal in sorted(found, key=lambda one: (one.status, one.code)):
        if (refusal.status, refusal.code) not in seen and refusal.status != errors.CLIENT_CLOSED.status:
            seen.add((refusal.status, refusal.code))
            yield refusal


def _errors() -> str:
    lines = [
        "### Errors\n\n",
        '`{"error": {"message", "type", "code", "param"}}`, as OpenAI\'s; codes are stable, messages are not.\n',
        "Refusals by a limit have `layer` (`org`, `env`, `key` or `platform`) and `dimension` besides: see\n",
        "[guardrails](guardrails.md).\n",
        "Besides these, 400 `invalid_json`, `invalid_type`, `invalid_value`, `missing_required_parameter`,\n",
        "`context_length_exceeded`, `max_tokens_exceeded`; 404 `model_not_found`; 403 `quota_exceeded`; 413\n",
        "`request_too_large`; 429 `rate_limit_exceeded`, `too_many_bad_keys`.\n\n",
        "| status | code | |\n| --- | --- | --- |\n",
    ]
    lines += [f"| {refusal.status} | `{refusal.code}` | {refusal.message} |\n" for refusal in _refusals()]
    return "".join(lines) + "\n"


def _management() -> str:
    unused: Any = None  # nothing is called: only the routes are listed
    services = ApiServices(**{field.name: unused for field in dataclasses.fields(ApiServices)})
    paths = create_app(services).openapi()["paths"]
    lines = [
        "## For operators and tenants\n\n",
        "The management API: `crosslogic control`, or the same port as the gateway under `crosslogic up`. `/admin`\n",
        "wants the admin key, `/api/v1` a key or token of the tenant's own admins, or to look, of its role read-only.\n"
        "A query parameter that a route does not have is refused with 400. `GET /openapi.json` has every\n",
        "field. Lists take `cursor` and `limit`, and answer `{data, next_cursor}`.\n\n",
        "| route | |\n| --- | --- |\n",
    ]
    for path, methods in sorted(paths.items()):
        lines += [f"| `{method.upper()} {path}` | {_summary(route)} |\n" for method, route in methods.items()]
    return "".join(lines)


def _summary(route: dict[str, Any]) -> str:
    return str(route.get("summary", "")).replace("|", "\\|")
