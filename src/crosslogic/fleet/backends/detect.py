"""Which kind of server answers at an address: a few questions at once, then a pure judgement.

Each engine has something that only it says: Ollama its greeting, vLLM, SGLang and llama.cpp the prefix of their
metrics, or where metrics are off, a path of their own and who "owns" the models that it lists.
"""

import asyncio

import msgspec

from crosslogic.fleet.backends.answers import read_models, read_owners
from crosslogic.fleet.fetch import Answer, Fetch
from crosslogic.fleet.model import BackendKind

DETECT_TIMEOUT_S = 2.0

_ROOT, _MODELS, _METRICS, _PROPS = "/", "/v1/models", "/metrics", "/props"
_SGLANG_INFO = ("/get_server_info", "/server_info")
_ASKED = (_ROOT, _MODELS, _METRICS, _PROPS, *_SGLANG_INFO)
_OWNERS = {
    "vllm": BackendKind.VLLM,
    "sglang": BackendKind.SGLANG,
    "llamacpp": BackendKind.LLAMACPP,
    "library": BackendKind.OLLAMA,
}


class Detected(msgspec.Struct, frozen=True):
    kind: BackendKind
    models: tuple[str, ...]


async def detect(
    fetch: Fetch, endpoint_url: str, *, api_key: str | None = None, timeout_s: float = DETECT_TIMEOUT_S
) -> Detected | None:
    """Kind and models of the server at `endpoint_url`; None when it does not (yet) list its models."""
    answers = await asyncio.gather(
        *(fetch(endpoint_url + path, api_key=api_key, timeout_s=timeout_s) for path in _ASKED)
    )
    return recognise(dict(zip(_ASKED, answers, strict=True)))


def recognise(answers: dict[str, Answer | None]) -> Detected | None:
    """Judge by what each path answered."""
    listed = _good(answers, _MODELS)
    models = read_models(listed) if listed is not None else None
    if listed is None or models is None:
        return None
    return Detected(_kind(answers, listed), models)


def _kind(answers: dict[str, Answer | None], listed: bytes) -> BackendKind:
    if b"Ollama is running" in (_good(answers, _ROOT) or b""):
        return BackendKind.OLLAMA
    metrics = b"\n" + (_good(answers, _METRICS) or b"")
    for prefix, kind in (
        (b"vllm:", BackendKind.VLLM),
        (b"sglang:", BackendKind.SGLANG),
        (b"llamacpp:", BackendKind.LLAMACPP),
    ):
        if b"\n" + prefix in metrics:
            return kind
    for owner in sorted(read_owners(listed)):
        if owner in _OWNERS:
            return _OWNERS[owner]
    if b"default_generation_settings" in (_good(answers, _PROPS) or b""):
        return BackendKind.LLAMACPP
    # Last, for vLLM in development mode has a /server_info too, though with other things in it.
    if any(b"mem_fraction_static" in (_good(answers, path) or b"") for path in _SGLANG_INFO):
        return BackendKind.SGLANG
    return BackendKind.OPENAI


def _good(answers: dict[str, Answer | None], path: str) -> bytes | None:
    answer = answers.get(path)
    return answer.body if answer is not None and answer.status == 200 else None
