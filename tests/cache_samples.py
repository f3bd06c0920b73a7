"""Requests and answers that the tests of the cache share."""

import json

from crosslogic.cache.model import Form, Question, Recording, Tokens
from crosslogic.cache.tap import Answered
from crosslogic.kernel.ids import EnvId, OrgId, RequestId

ENV, OTHER_ENV = EnvId("env_one"), EnvId("env_two")
ORG, OTHER_ORG = OrgId("org_one"), OrgId("org_two")
CHAT: dict[str, object] = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "hi"}]}
EVENTS = (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', b'data: {"choices":[{"delta":{}}]}\n\n')


def question(
    body: bytes | dict[str, object] = CHAT,
    *,
    org: OrgId = ORG,
    request_id: str = "req_1",
    endpoint: str = "chat/completions",
    model: str = "m",
    generates: bool = True,
    form: Form = Form.WHOLE,
    env: EnvId = ENV,
) -> Question:
    """A request as the gateway tells it to the cache."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Question(org, RequestId(request_id), endpoint, model, generates, form, raw, env)


def recording(
    body: bytes = b'{"ok":true}', request_id: str = "req_1", *, env: EnvId = ENV, model: str = "m"
) -> Recording:
    """A whole answer."""
    tokens = Tokens(3, 5, 1, 2)
    return Recording(
        RequestId(request_id), model, False, 200, b"application/json", (body,), tokens, "stop", env, "chat/completions"
    )


def stream(*pieces: bytes) -> Recording:
    """A recorded stream."""
    return Recording(
        RequestId("req_1"), "m", True, 200, b"text/event-stream", pieces or (*EVENTS, b"data: [DONE]\n\n"), Tokens(3, 2)
    )


def answered(body: bytes = b'{"ok":true}', *, streamed: bool = False, by_engine: bool = True, **more: str) -> Answered:
    """A completed answer; of a stream, `body` is its end."""
    content_type = b"" if streamed else b"application/json"
    model, finish_reason = more.get("model", "m"), more.get("finish_reason", "stop")
    return Answered(model, streamed, 200, content_type, body, Tokens(3, 5), by_engine, finish_reason)
