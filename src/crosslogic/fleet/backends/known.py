"""All backends by their kind."""

from collections.abc import Mapping

from crosslogic.fleet.backends.llamacpp import LLAMACPP
from crosslogic.fleet.backends.model import Backend
from crosslogic.fleet.backends.ollama import OLLAMA
from crosslogic.fleet.backends.openai import OPENAI
from crosslogic.fleet.backends.sglang import SGLANG
from crosslogic.fleet.backends.vllm import VLLM
from crosslogic.fleet.model import BackendKind

BACKENDS: Mapping[BackendKind, Backend] = {
    backend.kind: backend for backend in (VLLM, SGLANG, OLLAMA, LLAMACPP, OPENAI)
}


def backend_of(kind: BackendKind) -> Backend:
    """The properties of a kind of server."""
    return BACKENDS[kind]
