"""The extractor that asks a language model over any OpenAI-compatible endpoint, and falls back to the rules.

Invariant: whatever the endpoint does (time out, refuse, ramble, answer megabytes) the conversation goes on with what
was understood without it, and the reading says so.
"""

import asyncio
from collections.abc import Sequence

import httpx
import msgspec

from crosslogic.compass.intent.deterministic import extract
from crosslogic.compass.intent.llm_words import believed, request
from crosslogic.compass.intent.ports import Reading, Turn

NAME = "llm"
_MOST_BYTES = 256 * 1024


class LlmExtractor:
    """`Extractor` over `POST {base_url}/chat/completions`."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._timeout_s = timeout_s
        self._client = client or httpx.AsyncClient(timeout=timeout_s, follow_redirects=False)

    async def extract(self, turns: Sequence[Turn]) -> Reading:
        understood = extract(turns)
        try:
            async with asyncio.timeout(self._timeout_s):
                content = await self._ask(turns)
            return Reading(believed(content, turns, understood), NAME)
        except TimeoutError:
            note = f"the language model did not answer within {self._timeout_s:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            note = f"the language model cannot be reached ({type(error).__name__})"
        except ValueError as error:
            note = f"the language model's answer is of no use: {str(error)[:200]}"
        return Reading(understood, "deterministic", note)

    async def _ask(self, turns: Sequence[Turn]) -> str:
        body = msgspec.json.encode(request(self._model, turns))
        headers = {**self._headers, "content-type": "application/json"}
        async with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
            received = bytearray()
            async for piece in answer.aiter_bytes():
                received += piece
                if len(received) > _MOST_BYTES:
                    raise ValueError("it is larger than 256 KB")
        if answer.status_code != 200:
            raise ValueError(f"HTTP {answer.status_code}")
        return _content(bytes(received))

    async def close(self) -> None:
        await self._client.aclose()


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def _content(body: bytes) -> str:
    try:
        choices = msgspec.json.decode(body, type=_Completion).choices
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"it is no chat completion ({error})") from None
    if not choices or not choices[0].message.content:
        raise ValueError("it is empty")
    return choices[0].message.content
