"""What goes over the wire for OpenAI's chat and completions endpoints, event by event and whole, as vLLM writes it.

Pure. A writer turns the progress of one request into bytes of server-sent events; `whole` gives the body of the
answer when it is not streamed. The constant parts of an event are rendered once: only the token's text changes.
"""

from typing import Any, Protocol

import msgspec

from crosslogic.simulator.answer import Answer, logprob
from crosslogic.simulator.requests import Generation, Json

DONE = b"data: [DONE]\n\n"
encode = msgspec.json.encode


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request, over all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt: found in the prefix cache
    created_cache_tokens: int = 0  # of the prompt: put into it

    def openai(self) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": self.cached_tokens,
                "created_cache_tokens": self.created_cache_tokens,
            },
        }


class Writer(Protocol):
    """The bytes of one streamed answer. `made` counts the tokens of this choice so far, this one included."""

    def opening(self) -> bytes: ...
    def token(self, choice: int, made: int) -> bytes: ...
    def ending(self, usage: Usage | None) -> bytes: ...
    def whole(self, usage: Usage | None) -> Json: ...
    def failure(self) -> bytes | None:
        """How the stream ends when the engine dies; None: it is cut off."""
        ...

    done: bytes  # what marks the end of the stream after `ending`


ENGINE_DEAD = "The engine core has stopped; the server's log says why (simulated)."


class ChatWriter:
    """`chat.completion.chunk`: role first, one event per token, finish reason, then usage when asked for."""

    done = DONE

    def __init__(
        self, request: Generation, answers: list[Answer], request_id: str, created_s: int, prompt_tokens: int
    ) -> None:
        self._request = request
        self._answers = answers
        self._id = f"chatcmpl-{request_id}"
        self._created: Json = {"created": created_s, "model": request.model}
        self._call_ids = [f"chatcmpl-tool-{request_id}{i}" for i in range(len(answers))]
        self._prompt_tokens = prompt_tokens
        # {"id":…,"object":…,"created":…,"model":…,"choices":[{"index": … the rest differs
        self._prefix = b"data: " + encode(self._chunk([]))[:-2] + b'{"index":'
        self._plain = request.logprobs is None and not request.continuous_usage

    def opening(self) -> bytes:
        return b"".join(self._event(i, {"role": "assistant", "content": ""}, None) for i in range(len(self._answers)))

    def token(self, choice: int, made: int) -> bytes:
        answer = self._answers[choice]
        piece = answer.pieces[made - 1]
        last = made == len(answer.pieces)
        # A natural end is vLLM's end-of-sequence token: an event of its own, without text.
        inline = last and (answer.finish_reason == "length" or answer.stop_text is not None)
        if self._plain and answer.tool is None and not inline:
            data = b'%b%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]}\n\n' % (
                self._prefix,
                choice,
                encode(piece),
            )
        else:
            data = self._event(choice, self._call_name(choice), None) if answer.tool and made == 1 else b""
            delta: Json = {"content": piece}
            if answer.tool is not None:
                delta = {"content": None, "tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            data += self._event(choice, delta, answer.finish_reason if inline else None, made, piece)
        if last and not inline:
            delta = {"content": ""} if answer.tool is None else {}
            data += self._event(choice, delta, answer.finish_reason, made)
        return data

    def ending(self, usage: Usage | None) -> bytes:
        if usage is None or not self._request.include_usage:
            return b""
        return b"data: %b\n\n" % encode(self._chunk([]) | {"usage": usage.openai()})

    def whole(self, usage: Usage | None) -> Json:
        choices = []
        for index, answer in enumerate(self._answers):
            message: Json = {
                "role": "assistant",
                "content": "" if answer.tool else answer.text,
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "reasoning": None,
            }
            if answer.tool:
                function = {"name": answer.tool, "arguments": answer.text}
                message["tool_calls"] = [{"id": self._call_ids[index], "type": "function", "function": function}]
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "logprobs": self._logprobs(answer.pieces),
                    "finish_reason": answer.finish_reason,
                    "stop_reason": answer.stop_text,
                }
            )
        body = {"id": self._id, "object": "chat.completion", **self._created, "choices": choices}
        return body if usage is None else body | {"usage": usage.openai()}

    def _chunk(self, choices: list[Json]) -> Json:
        return {"id": self._id, "object": "chat.completion.chunk", **self._created, "choices": choices}

    def _call_name(self, choice: int) -> Json:
        call = {"id": self._call_ids[choice], "type": "function", "index": 0}
        return {"content": None, "tool_calls": [call | {"function": {"name": self._answers[choice].tool}}]}

    def failure(self) -> bytes:
        return openai_failure()

    def _event(self, index: int, delta: Json, finish: str | None, made: int = 0, piece: str | None = None) -> bytes:
        choice: Json = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        if piece is not None:
            choice["logprobs"] = self._logprobs([piece])
        if finish is not None:
            choice["stop_reason"] = self._answers[index].stop_text
        chunk = self._chunk([choice])
        if self._request.continuous_usage:
            chunk["usage"] = Usage(self._prompt_tokens, made).openai()
        return b"data: %b\n\n" % encode(chunk)

    def _logprobs(self, pieces: list[str]) -> Json | None:
        if self._request.logprobs is None:
            return None
        return {"content": [_chat_logprob(piece, self._request.logprobs) for piece in pieces]}


class CompletionWriter:
    """`text_completion`: one event per token, the finish reason with the last one."""

    done = DONE

    def __init__(
        self, request: Generation, answers: list[Answer], request_id: str, created_s: int, prompt_tokens: int
    ) -> None:
        self._request = request
        self._answers = answers
        self._head: Json = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": created_s,
            "model": request.model,
        }
        self._prompt_tokens = prompt_tokens
        self._offsets = [0] * len(answers)

    def opening(self) -> bytes:
        return b""

    def token(self, choice: int, made: int) -> bytes:
        answer = self._answers[choice]
        piece = answer.pieces[made - 1]
        last = made == len(answer.pieces)
        shown = self._prompt_text(choice) + piece if made == 1 else piece
        body = {
            "index": choice,
            "text": shown,
            "logprobs": self._logprobs([piece], self._offsets[choice]),
            "finish_reason": answer.finish_reason if last else None,
            "stop_reason": answer.stop_text if last else None,
        }
        self._offsets[choice] += len(shown)
        chunk = self._head | {"choices": [body]}
        if self._request.continuous_usage:
            chunk["usage"] = Usage(self._prompt_tokens, made).openai()
        return b"data: %b\n\n" % encode(chunk)

    def ending(self, usage: Usage | None) -> bytes:
        if usage is None or not self._request.include_usage:
            return b""
        return b"data: %b\n\n" % encode(self._head | {"choices": [], "usage": usage.openai()})

    def whole(self, usage: Usage | None) -> Json:
        choices = [
            {
                "index": index,
                "text": self._prompt_text(index) + answer.text,
                "logprobs": self._logprobs(answer.pieces, 0),
                "finish_reason": answer.finish_reason,
                "stop_reason": answer.stop_text,
            }
            for index, answer in enumerate(self._answers)
        ]
        body = self._head | {"choices": choices}
        return body if usage is None else body | {"usage": usage.openai()}

    def failure(self) -> bytes:
        return openai_failure()

    def _prompt_text(self, choice: int) -> str:
        return self._request.prompts[choice // self._request.choices].text if self._request.echo else ""

    def _logprobs(self, pieces: list[str], offset: int) -> Json | None:
        if self._request.logprobs is None:
            return None
        offsets = []
        for piece in pieces:
            offsets.append(offset)
            offset += len(piece)
        return {
            "text_offset": offsets,
            "token_logprobs": [logprob(p) for p in pieces],
            "tokens": pieces,
            "top_logprobs": [dict(_alternatives(p, self._request.logprobs)) for p in pieces],
        }


def error_body(message: str, kind: str, status: int, param: str | None = None) -> Json:
    """vLLM's error: OpenAI's shape, with the status as code."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def openai_failure() -> bytes:
    """As vLLM when its engine core is killed: an error event, and yet `[DONE]`."""
    return b"data: %b\n\n%b" % (encode(error_body(ENGINE_DEAD, "InternalServerError", 500)), DONE)


def _chat_logprob(piece: str, top: int) -> Json:
    def entry(token: str, value: float) -> Json:
        return {"token": token, "logprob": value, "bytes": list(token.encode())}

    return entry(piece, logprob(piece)) | {
        "top_logprobs": [entry(token, value) for token, value in _alternatives(piece, top)]
    }


def _alternatives(piece: str, top: int) -> list[tuple[str, float]]:
    """The chosen token first, then others that might have stood there."""
    others: list[Any] = [(f" alt{rank}", logprob(piece, rank)) for rank in range(1, top)]
    return [(piece, logprob(piece)), *others] if top else []
