"""Embeddings, scores and reranking: requests that need a prefill and then have nothing to decode.

Pure but for ids and the date. Each function checks a body and returns what must be prefilled, and how to build the
answer once that is done.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator import embedding, requests, tokens
from crosslogic.simulator.replies import Usage
from crosslogic.simulator.requests import Json, Prompt

MAX_DIMENSIONS = 8192

Prepared = tuple[list[Prompt], Callable[[], Json]]


def embeddings(body: Json) -> Prepared:
    """`POST /v1/embeddings`."""
    prompts = requests.read_inputs(body, "input")
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise InvalidRequest("encoding_format must be float or base64", param="encoding_format")
    size = requests.integer_field(body, "dimensions", 1, MAX_DIMENSIONS) or embedding.DEFAULT_DIMENSIONS

    def build() -> Json:
        data = []
        for index, prompt in enumerate(prompts):
            vector: Any = embedding.embed(prompt.text, size)
            vector = vector if form == "float" else embedding.as_base64(vector)
            data.append({"index": index, "object": "embedding", "embedding": vector})
        usage = _usage(prompts) | {"completion_tokens": 0}
        return _head(body, "embd") | {"object": "list", "data": data, "usage": usage}

    return prompts, build


def rerank(body: Json) -> Prepared:
    """`POST /v1/rerank`, in the shape of Jina and Cohere."""
    query = requests.text_field(body, "query")
    documents = requests.read_inputs(body, "documents")
    pairs = [Prompt(d.text, d.tokens + tokens.count(query), "") for d in documents]
    top = requests.integer_field(body, "top_n", 1) or len(documents)

    def build() -> Json:
        scored = [(embedding.similarity(query, d.text), index) for index, d in enumerate(documents)]
        scored.sort(key=lambda s: (-s[0], s[1]))
        results = [
            {"index": i, "document": {"text": documents[i].text}, "relevance_score": score} for score, i in scored[:top]
        ]
        return _head(body, "rerank") | {"results": results, "usage": _usage(pairs)}

    return pairs, build


def score(body: Json) -> Prepared:
    """`POST /v1/score`: one text against many, or pair by pair."""
    first = requests.read_inputs(body, "text_1")
    second = requests.read_inputs(body, "text_2")
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise InvalidRequest("text_1 must hold one text, or as many as text_2", param="text_1")
    couples = list(zip(first, second, strict=True))
    pairs = [Prompt(b.text, a.tokens + b.tokens, "") for a, b in couples]

    def build() -> Json:
        data = [
            {"index": i, "object": "score", "score": embedding.similarity(a.text, b.text)}
            for i, (a, b) in enumerate(couples)
        ]
        return _head(body, "score") | {"object": "list", "data": data, "usage": _usage(pairs)}

    return pairs, build


class WholeWriter:
    """The writer of an answer that is never streamed."""

    done = b""

    def __init__(self, build: Callable[[], Json]) -> None:
        self._build = build

    def opening(self) -> bytes:
        return b""

    def token(self, choice: int, made: int) -> bytes:
        return b""

    def ending(self, usage: Usage | None) -> bytes:
        return b""

    def failure(self) -> None:
        """There is no stream to fail."""

    def whole(self, usage: Usage | None) -> Json:
        body = self._build()
        if usage is None:
            body.pop("usage", None)
        return body


def _head(body: Json, prefix: str) -> Json:
    return {"id": f"{prefix}-{secrets.token_hex(16)}", "created": int(time.time()), "model": body["model"]}


def _usage(prompts: list[Prompt]) -> Json:
    total = sum(p.tokens for p in prompts)
    return {"prompt_tokens": total, "total_tokens": total}
