"""How each engine is started: command lines as data. Pure.

Invariant: keys go into the engine's environment, where it can read them there, and not into its command line, which
every user of the machine can read.
"""

import sys
from collections.abc import Mapping

import msgspec

from crosslogic.agent.model import EngineName, EngineOptions
from crosslogic.kernel.errors import ConfigurationError


class Template(msgspec.Struct, frozen=True):
    """Words may hold {model}, {name}, {host}, {port} and {key}."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = {}
    key_words: tuple[str, ...] = ()  # added where there is a key and the engine cannot take it otherwise
    key_environment: str | None = None
    name_words: tuple[str, ...] = ()  # added where the model is a path, so that it is served under its name


TEMPLATES: Mapping[EngineName, Template] = {
    EngineName.VLLM: Template(
        ("vllm", "serve", "{model}", "--host", "{host}", "--port", "{port}"),
        key_environment="VLLM_API_KEY",
        name_words=("--served-model-name", "{name}"),
    ),
    EngineName.SGLANG: Template(
        (
            *(sys.executable, "-m", "sglang.launch_server", "--model-path", "{model}"),
            *("--host", "{host}", "--port", "{port}", "--enable-metrics"),
        ),
        key_words=("--api-key", "{key}"),
        name_words=("--served-model-name", "{name}"),
    ),
    EngineName.OLLAMA: Template(("ollama", "serve"), environment={"OLLAMA_HOST": "{host}:{port}"}),
    EngineName.LLAMACPP: Template(
        ("llama-server", "--model", "{model}", "--host", "{host}", "--port", "{port}", "--metrics"),
        key_environment="LLAMA_API_KEY",
        name_words=("--alias", "{name}"),
    ),
    EngineName.SIMULATE: Template(
        (sys.executable, "-m", "crosslogic.simulator", "--model", "{model}", "--host", "{host}", "--port", "{port}"),
        key_environment="VLLM_API_KEY",
    ),
}


def command(options: EngineOptions) -> tuple[list[str], dict[str, str]]:
    """Command line of the engine, and what its environment has besides ours. Raises ConfigurationError."""
    template = Template(options.command) if options.command else TEMPLATES[options.name]
    if not options.model and any("{model}" in word for word in template.words):
        raise ConfigurationError(f"the engine {options.name.value} needs a model; give --model")
    model = options.model if options.weights is None else str(options.weights)
    values = {
        "model": model,
        "name": options.model,
        "host": options.host,
        "port": str(options.port),
        "key": options.api_key or "",
    }
    words = [*template.words, *(template.key_words if options.api_key else ())]
    words += template.name_words if options.weights is not None else ()
    environment = {name: _filled(text, values) for name, text in template.environment.items()}
    if options.api_key and template.key_environment:
        environment[template.key_environment] = options.api_key
    return [*(_filled(word, values) for word in words), *options.arguments], environment


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
