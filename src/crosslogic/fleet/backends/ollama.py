"""Ollama. No metrics and no tokenizer; the root path says that it runs, `/v1/models` what has been pulled."""

from crosslogic.fleet.backends.model import Backend
from crosslogic.fleet.model import BackendKind

OLLAMA = Backend(kind=BackendKind.OLLAMA, health_path="/")
