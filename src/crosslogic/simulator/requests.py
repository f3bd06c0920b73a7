"""From a request body to a `Generation`: what to generate and how to report it, checked as vLLM checks it.

Pure. Invariant: whatever `read_*` accepts can be served; everything else raises InvalidRequest with the field's
name, in words of our own but with vLLM's status.
"""

from typing import Any

import msgspec

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator import tokens

Json = dict[str, Any]

TOKENS_PER_MESSAGE = 4  # what a chat template adds around each message
TEMPLATE_TOKENS = 3
MAX_CHOICES = 128
MAX_STOPS = 16
DEFAULT_COMPLETION_TOKENS = 16


class Prompt(msgspec.Struct, frozen=True):
    """One prompt: its text (empty when it came as token ids), its length, and the part that asks something."""

    text: str
    tokens: int
    question: str
    given: str = ""  # the beginning of the answer, which is to be continued; `tokens` counts it, `text` is without


class Tool(msgspec.Struct, frozen=True):
    name: str
    parameters: Json


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request for generated text, the same for all four generating endpoints."""

    model: str
    prompts: tuple[Prompt, ...]
    max_tokens: int | None
    choices: int = 1  # for each prompt
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    seed: int = 0
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    logprobs: int | None = None  # alternatives to report for each token
    echo: bool = False
    tools: tuple[Tool, ...] = ()
    forced_tool: str | None = None  # a tool's name
    json_schema: Json | None = None  # {} for any object
    repeatable: bool = False  # greedy or seeded: every node gives the same answer
    completes: bool = False  # the answer goes on where the prompt ends


def decode(body: bytes) -> Json:
    """The JSON object of a body."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


def read_chat(body: Json) -> Generation:
    """`POST /v1/chat/completions`."""
    prompt = _continued(body) if _boolean(body, "continue_final_message") else _chat_prompt(_items(body, "messages"))
    tools = tuple(_tool(t.get("function")) for t in _objects(body, "tools"))
    maximum = integer_field(body, "max_completion_tokens", 1) or integer_field(body, "max_tokens", 1)
    wants = _boolean(body, "logprobs")
    top = integer_field(body, "top_logprobs", 0, 20)
    if top and not wants:
        raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    return _generation(
        body,
        prompts=(prompt,),
        max_tokens=maximum,
        logprobs=(top or 0) if wants else None,
        tools=tools,
        forced_tool=_forced_tool(body.get("tool_choice"), tools, prompt.question),
        json_schema=_json_schema(body.get("response_format")),
    )


def read_completion(body: Json) -> Generation:
    """`POST /v1/completions`: text, token ids, or a list of either."""
    return _generation(
        body,
        prompts=tuple(_texts(body, "prompt")),
        max_tokens=integer_field(body, "max_tokens", 1) or DEFAULT_COMPLETION_TOKENS,
        logprobs=integer_field(body, "logprobs", 0, 20),
        echo=_boolean(body, "echo"),
        completes=True,
    )


def read_responses(body: Json) -> Generation:
    """`POST /v1/responses`."""
    given = body.get("input")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else _items(body, "input")
    if isinstance(body.get("instructions"), str):
        messages = [{"role": "system", "content": body["instructions"]}, *messages]
    tools = tuple(_tool(t) for t in _objects(body, "tools") if t.get("type") == "function")
    text = body.get("text")
    prompt = _chat_prompt(messages)
    return _generation(
        body,
        prompts=(prompt,),
        max_tokens=integer_field(body, "max_output_tokens", 1),
        tools=tools,
        forced_tool=_forced_tool(body.get("tool_choice"), tools, prompt.question),
        json_schema=_json_schema(text.get("format")) if isinstance(text, dict) else None,
    )


def read_messages(body: Json) -> Generation:
    """`POST /v1/messages` (Anthropic)."""
    messages = _items(body, "messages")
    if body.get("system") is not None:
        messages = [{"role": "system", "content": body["system"]}, *messages]
    maximum = integer_field(body, "max_tokens", 1)
    if maximum is None:
        raise InvalidRequest("max_tokens is required", param="max_tokens")
    tools = tuple(_tool(t, "input_schema") for t in _objects(body, "tools"))
    prompt = _chat_prompt(messages)
    return _generation(
        body,
        prompts=(prompt,),
        max_tokens=maximum,
        stop=_strings(body, "stop_sequences"),
        tools=tools,
        forced_tool=_forced_tool(body.get("tool_choice"), tools, prompt.question),
    )


def read_inputs(body: Json, field: str) -> list[Prompt]:
    """The texts of an embedding, score or rerank request."""
    return _texts(body, field)


def text_field(body: Json, name: str) -> str:
    """A field that must be a non-empty text."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} must be a non-empty text", param=name)
    return value


def _generation(body: Json, **read: Any) -> Generation:
    """The fields that all generating endpoints share."""
    stream = _boolean(body, "stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("stream_options must be an object", param="stream_options")
    if options and not stream:
        raise InvalidRequest("stream_options needs stream to be true", param="stream_options")
    options = options or {}
    for name, upper in (("temperature", 2.0), ("top_p", 1.0)):
        _number(body, name, upper)
    read.setdefault("stop", _strings(body, "stop"))
    return Generation(
        model=text_field(body, "model"),
        choices=integer_field(body, "n", 1, MAX_CHOICES) or 1,
        min_tokens=integer_field(body, "min_tokens", 0) or 0,
        ignore_eos=_boolean(body, "ignore_eos"),
        seed=integer_field(body, "seed", -(2**63), 2**64) or 0,
        repeatable=body.get("seed") is not None or body.get("temperature") == 0,
        stream=stream,
        include_usage=_boolean(options, "include_usage"),
        continuous_usage=_boolean(options, "continuous_usage_stats"),
        **read,
    )


def _chat_prompt(messages: list[Any]) -> Prompt:
    texts: list[str] = []
    question = ""
    for message in messages:
        if not isinstance(message, dict):
            raise InvalidRequest("each message must be an object", param="messages")
        text = _content(message)
        texts.append(f"<|{message.get('role', message.get('type'))}|>{text}")
        if message.get("role") == "user":
            question = text
    text = "\n".join(texts)
    length = sum(tokens.count(t) for t in texts) + TOKENS_PER_MESSAGE * len(texts) + TEMPLATE_TOKENS
    return Prompt(text, length, question or texts[-1])


def _continued(body: Json) -> Prompt:
    """A chat whose last message is the beginning of the answer."""
    *messages, last = _items(body, "messages")
    if _boolean(body, "add_generation_prompt"):
        raise InvalidRequest("continue_final_message and add_generation_prompt cannot both be true")
    given = last.get("content") if isinstance(last, dict) and last.get("role") == "assistant" else None
    if not messages or not isinstance(given, str) or not given:
        raise InvalidRequest("continue_final_message needs a last message of the assistant", param="messages")
    prompt = _chat_prompt(messages)
    return Prompt(prompt.text, prompt.tokens + tokens.count(given), prompt.question, given)


def _content(message: Json) -> str:
    """The text of one message; images and other parts count as a short stand-in."""
    if "role" not in message and "type" not in message:
        raise InvalidRequest("each message needs a role", param="messages")
    if not isinstance(message.get("role", ""), str):
        raise InvalidRequest("a message's role must be a text", param="messages")
    content = message.get("content")
    if content is None:
        # An assistant's tool call, or an item of the Responses API such as a function's output.
        rest = {k: message[k] for k in ("tool_calls", "arguments", "output", "summary") if k in message}
        return msgspec.json.encode(rest).decode() if rest else ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest("a message's content must be a text or a list of parts", param="messages")
    pieces = []
    for part in content:
        if isinstance(part, str):
            pieces.append(part)
        elif isinstance(part, dict):
            text = part.get("text", part.get("content"))
            pieces.append(text if isinstance(text, str) else f"<|{part.get('type', 'part')}|>")
        else:
            raise InvalidRequest("each content part must be an object", param="messages")
    return "\n".join(pieces)


def _texts(body: Json, name: str) -> list[Prompt]:
    given = body.get(name)
    if isinstance(given, str) or (isinstance(given, list) and given and _is_token(given[0])):
        given = [given]
    if not isinstance(given, list) or not given:
        raise InvalidRequest(f"{name} must be a text, token ids, or a list of those", param=name)
    prompts = []
    for item in given:
        if isinstance(item, str):
            length = tokens.count(item)
            prompts.append(Prompt(item, length, item))
        elif isinstance(item, list) and all(_is_token(t) for t in item):
            prompts.append(Prompt(",".join(map(str, item)), len(item), ""))
        else:
            raise InvalidRequest(f"{name} must hold texts or token ids", param=name)
        if not prompts[-1].tokens:
            raise InvalidRequest(f"{name} must not be empty", param=name)
    return prompts


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _items(body: Json, name: str) -> list[Any]:
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"{name} must be a non-empty list", param=name)
    return value


def _objects(body: Json, name: str) -> list[Json]:
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise InvalidRequest(f"{name} must be a list of objects", param=name)
    return value


def _tool(function: Any, schema_field: str = "parameters") -> Tool:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRequest("each tool needs a function with a name", param="tools")
    schema = function.get(schema_field)
    return Tool(function["name"], schema if isinstance(schema, dict) else {})


def _forced_tool(choice: Any, tools: tuple[Tool, ...], question: str) -> str | None:
    """Which tool the answer must call: the one named, any when required, or (auto) one that the user names."""
    if choice in (None, "auto", "none") or choice == {"type": "auto"} or choice == {"type": "none"}:
        if choice in (None, "auto") or choice == {"type": "auto"}:
            return next((t.name for t in tools if t.name in question), None)
        return None
    if choice == "required" or choice == {"type": "any"}:
        if not tools:
            raise InvalidRequest("tool_choice needs tools", param="tool_choice")
        return next((t.name for t in tools if t.name in question), tools[0].name)
    name = None
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else choice.get("name")
    if name not in {t.name for t in tools}:
        raise InvalidRequest("tool_choice names a tool that is not among the tools", param="tool_choice")
    return str(name)


def _json_schema(form: Any) -> Json | None:
    if form is None:
        return None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {}
    if kind == "json_schema":
        inner = form.get("json_schema", form)
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if isinstance(schema, dict):
            return schema
    raise InvalidRequest("response_format is not one that is known", param="response_format")


def integer_field(body: Json, name: str, lower: int, upper: int = 2**31) -> int | None:
    """A field that is absent or an integer within these bounds."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not lower <= value <= upper:
        raise InvalidRequest(f"{name} must be an integer from {lower} to {upper}", param=name)
    return value


def _number(body: Json, name: str, upper: float) -> None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= upper):
        raise InvalidRequest(f"{name} must be a number from 0 to {upper:g}", param=name)


def _boolean(body: Json, name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false", param=name)
    return bool(value)


def _strings(body: Json, name: str) -> tuple[str, ...]:
    value = body.get(name)
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > MAX_STOPS or not all(isinstance(v, str) for v in values):
        raise InvalidRequest(f"{name} must be a text or a list of at most {MAX_STOPS} texts", param=name)
    return tuple(v for v in values if v)
