"""The two other generating APIs that vLLM serves: OpenAI's Responses and Anthropic's Messages.

Pure, and of the same shape as the writers in `replies.py`: these APIs name every event.
"""

import msgspec

from crosslogic.simulator.answer import Answer
from crosslogic.simulator.replies import ENGINE_DEAD, Usage, encode
from crosslogic.simulator.requests import Generation, Json


def named_event(kind: str, body: Json) -> bytes:
    """A server-sent event whose name is also its `type` field."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind} | body))


class ResponsesWriter:
    """`/v1/responses`: one output item, a message or a function call; usage is always in the last event."""

    done = b""

    def __init__(
        self, request: Generation, answers: list[Answer], request_id: str, created_s: int, prompt_tokens: int
    ) -> None:
        self._request = request
        self._answer = answers[0]
        self._id = f"resp_{request_id}"
        self._item = f"{'fc' if self._answer.tool else 'msg'}_{request_id}"
        self._created_s = created_s
        self._number = 0

    def opening(self) -> bytes:
        started = self._response("in_progress", [], None)
        item = self._output("in_progress", "")
        item = item if self._answer.tool else item | {"content": []}
        data = self._event("response.created", {"response": started})
        data += self._event("response.in_progress", {"response": started})
        data += self._event("response.output_item.added", {"output_index": 0, "item": item})
        if not self._answer.tool:
            data += self._event("response.content_part.added", self._place() | {"part": _part("")})
        return data

    def token(self, choice: int, made: int) -> bytes:
        delta = self._answer.pieces[made - 1]
        if self._answer.tool:
            place = {"output_index": 0, "item_id": self._item}
            return self._event("response.function_call_arguments.delta", place | {"delta": delta})
        return self._event("response.output_text.delta", self._place() | {"delta": delta, "logprobs": []})

    def ending(self, usage: Usage | None) -> bytes:
        text = self._answer.text
        item = self._output("completed", text)
        if self._answer.tool:
            place = {"output_index": 0, "item_id": self._item}
            data = self._event("response.function_call_arguments.done", place | {"arguments": text})
        else:
            data = self._event("response.output_text.done", self._place() | {"text": text, "logprobs": []})
            data += self._event("response.content_part.done", self._place() | {"part": _part(text)})
        data += self._event("response.output_item.done", {"output_index": 0, "item": item})
        whole = self.whole(usage)
        # vLLM names this event so even when the status is incomplete.
        return data + self._event("response.completed", {"response": whole})

    def failure(self) -> None:
        """vLLM cuts this stream off."""

    def whole(self, usage: Usage | None) -> Json:
        status = "incomplete" if self._answer.finish_reason == "length" else "completed"
        return self._response(status, [self._output(status, self._answer.text)], usage)

    def _place(self) -> Json:
        return {"output_index": 0, "content_index": 0, "item_id": self._item}

    def _event(self, kind: str, body: Json) -> bytes:
        self._number += 1
        return named_event(kind, body | {"sequence_number": self._number - 1})

    def _output(self, status: str, text: str) -> Json:
        if self._answer.tool:
            call = {"type": "function_call", "name": self._answer.tool, "call_id": f"call_{self._item}"}
            return call | {"id": self._item, "arguments": text, "status": status}
        message = {"type": "message", "id": self._item, "role": "assistant", "status": status}
        return message | {"content": [_part(text)]}

    def _response(self, status: str, output: list[Json], usage: Usage | None) -> Json:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_s,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None,
            "metadata": None,
            "model": self._request.model,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": None if usage is None else _responses_usage(usage),
        }


class MessagesWriter:
    """`/v1/messages`: one content block, text or tool use; usage in the first and the last but one event."""

    done = b""

    def __init__(
        self, request: Generation, answers: list[Answer], request_id: str, created_s: int, prompt_tokens: int
    ) -> None:
        self._request = request
        self._answer = answers[0]
        self._id = f"chatcmpl-{request_id}"  # vLLM runs these through its chat endpoint
        self._prompt_tokens = prompt_tokens

    def opening(self) -> bytes:
        usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        message = self._message([], None, None, usage)
        block = self._block("") if not self._answer.tool else self._block("{}")
        return named_event("message_start", {"message": message}) + named_event(
            "content_block_start", {"index": 0, "content_block": block}
        )

    def token(self, choice: int, made: int) -> bytes:
        piece = self._answer.pieces[made - 1]
        delta = {"type": "text_delta", "text": piece}
        if self._answer.tool:
            delta = {"type": "input_json_delta", "partial_json": piece}
        return named_event("content_block_delta", {"index": 0, "delta": delta})

    def ending(self, usage: Usage | None) -> bytes:
        body: Json = {"delta": {"stop_reason": self._stop_reason(), "stop_sequence": self._answer.stop_text}}
        if usage is not None:
            body["usage"] = _messages_usage(usage)
        data = named_event("content_block_stop", {"index": 0})
        return data + named_event("message_delta", body) + named_event("message_stop", {})

    def failure(self) -> bytes:
        return named_event("error", {"error": {"type": "internal_error", "message": ENGINE_DEAD}})

    def whole(self, usage: Usage | None) -> Json:
        counted = None if usage is None else _messages_usage(usage)
        block = self._block(self._answer.text)
        return self._message([block], self._stop_reason(), self._answer.stop_text, counted)

    def _stop_reason(self) -> str:
        if self._answer.tool and self._answer.finish_reason == "tool_calls":
            return "tool_use"
        if self._answer.stop_text is not None:
            return "stop_sequence"
        return "max_tokens" if self._answer.finish_reason == "length" else "end_turn"

    def _block(self, text: str) -> Json:
        if self._answer.tool:
            call = {"type": "tool_use", "id": f"toolu_{self._id}", "name": self._answer.tool}
            return call | {"input": _object(text)}
        return {"type": "text", "text": text}

    def _message(self, content: list[Json], reason: str | None, stop: str | None, usage: Json | None) -> Json:
        message: Json = {"id": self._id, "type": "message", "role": "assistant", "model": self._request.model}
        message |= {"content": content, "stop_reason": reason, "stop_sequence": stop}
        return message if usage is None else message | {"usage": usage}


def messages_error(message: str, kind: str) -> Json:
    """Anthropic's error shape, with vLLM's names of the kinds."""
    return {"type": "error", "error": {"type": kind, "message": message}}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": None}


def _object(text: str) -> Json:
    """The arguments as an object; empty when the token limit cut them off."""
    try:
        value = msgspec.json.decode(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _responses_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _messages_usage(usage: Usage) -> Json:
    """As Anthropic counts: the three kinds of input tokens add up to the prompt."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens - usage.created_cache_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_creation_input_tokens": usage.created_cache_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
    }
