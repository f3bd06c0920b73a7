"""What `crosslogic up` prints when it is ready: addresses, keys, and two lines that work when pasted."""

from typing import Protocol


class Announced(Protocol):
    base_url: str
    api_key: str
    admin_key: str
    models: list[str]


def banner(ready: Announced) -> str:
    model = ready.models[0] if ready.models else "MODEL"
    models = ", ".join(ready.models) or "none yet: no node answers; see `crosslogic nodes list`"
    return f"""
CrossLogic Inference Cloud is ready.

  base URL   {ready.base_url}
  API key    {ready.api_key}
  admin key  {ready.admin_key}
  models     {models}

curl {ready.base_url}/chat/completions -H 'Authorization: Bearer {ready.api_key}' -H 'Content-Type: application/json' \
-d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}], "stream": true}}'

from openai import OpenAI
client = OpenAI(base_url="{ready.base_url}", api_key="{ready.api_key}")
answer = client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hello"}}])
print(answer.choices[0].message.content)

Ctrl-C stops it; keys and usage are kept.
"""
