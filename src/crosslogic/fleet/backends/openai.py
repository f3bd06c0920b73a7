"""Any other OpenAI-compatible server, of which the least is assumed.

`transformers serve` sends no `[DONE]`, `llama-cpp-python` accepts `include_usage` and ignores it
(reference/components.md): asking does no harm, relying on either would.
"""

from crosslogic.fleet.backends.model import Backend
from crosslogic.fleet.model import BackendKind

OPENAI = Backend(kind=BackendKind.OPENAI, health_path="/v1/models")
