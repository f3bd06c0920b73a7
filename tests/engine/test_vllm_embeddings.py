"""Embeddings of a real vLLM through the gateway."""

import openai
import pytest

from tests.engine.conftest import StartCloud
from tests.engine.servers import EMBEDDING_MODEL, Engines
from tests.flow.clouds import EmbeddedCloud

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def embedding_cloud(start_cloud: StartCloud, engines: Engines) -> EmbeddedCloud:
    return start_cloud(engines.embedding)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_are_the_engines_and_billed(embedding_cloud: EmbeddedCloud, engines: Engines, encoding: str) -> None:
    texts = ["the sea is salty", "the sky is blue"]
    body = {"model": EMBEDDING_MODEL, "input": texts, "encoding_format": encoding}
    through = embedding_cloud.ask(body, "/v1/embeddings")
    directly = engines.embedding.post("/v1/embeddings", body).json()
    assert [item["embedding"] for item in through.json["data"]] == [item["embedding"] for item in directly["data"]]
    assert through.json["usage"] == directly["usage"]
    row = embedding_cloud.row(through.headers["x-request-id"])
    assert (row["prompt_tokens"], row["completion_tokens"]) == (directly["usage"]["prompt_tokens"], 0)
    assert (row["evidence"], row["outcome"]) == ("engine", "completed")


def test_the_sdk_decodes_them(embedding_cloud: EmbeddedCloud) -> None:
    with openai.OpenAI(base_url=embedding_cloud.base_url, api_key=embedding_cloud.api_key) as client:
        answer = client.embeddings.create(model=EMBEDDING_MODEL, input=["the sea", "the sky"])
    assert len(answer.data[0].embedding) == 256
    assert answer.data[0].embedding != answer.data[1].embedding


def test_a_chat_with_a_model_that_only_embeds_is_refused(embedding_cloud: EmbeddedCloud) -> None:
    reply = embedding_cloud.ask({"model": EMBEDDING_MODEL, "messages": [{"role": "user", "content": "Hello"}]})
    assert reply.status >= 400
    assert "error" in reply.json
