"""What one request of a principal may be: what is refused, what is written into a body, what is reserved."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.gateway.endpoints import BY_PATH
from crosslogic.gateway.fitting import Exceeded, Fitted, exceeded, fit
from crosslogic.gateway.request import Call, ModelBounds, read_call
from crosslogic.limits.model import Dimension, Layer, Limits, Scope
from crosslogic.metering.model import Usage
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.pricing.estimate import CostEstimates
from crosslogic.tenancy.bounds import Bounds, bounds_of

MODEL = ModelBounds("m", 8000, 4000)
UNKNOWN = ModelBounds("m")
COSTS = CostEstimates(PriceBook(PriceList((PriceEntry("*", Decimal(1), Decimal(10)),))), ["eu"])
INPUT_PUSD, OUTPUT_PUSD = 10**6, 10**7


def read(path: str = "/v1/chat/completions", model: ModelBounds = MODEL, **body: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | body
    return read_call(BY_PATH[path.encode()], msgspec.json.encode(body), {"m": model}, default_output_tokens=1024)


def bounds(**limits: Any) -> Bounds:
    found = bounds_of((Scope(Layer.ENV, "env_1", Limits(**limits)),))
    assert found is not None
    return found


def fitted(call: Call, of: Bounds, model: ModelBounds = MODEL) -> Fitted:
    found = fit(call, of, model, COSTS, ("m",), None)
    assert isinstance(found, Fitted)
    return found


def written(call: Call, name: str = "max_tokens") -> int | None:
    value: int | None = msgspec.json.decode(call.body).get(name)
    return value


def test_who_has_no_such_ceilings_has_no_bounds() -> None:
    assert bounds_of(()) is None
    assert bounds_of((Scope(Layer.ORG, "org_1", Limits(requests_per_minute=1, tokens_per_day=5)),)) is None


@pytest.mark.parametrize(
    ("limits", "body", "dimension"),
    [
        ({"max_output_tokens": 10}, {"max_tokens": 11}, Dimension.MAX_OUTPUT_TOKENS),
        ({"max_output_tokens": 10}, {"max_completion_tokens": 11}, Dimension.MAX_OUTPUT_TOKENS),
        ({"max_output_tokens": 10}, {"max_tokens": 6, "n": 2}, Dimension.MAX_OUTPUT_TOKENS),
        ({"max_output_tokens": 10}, {"n": 11}, Dimension.MAX_OUTPUT_TOKENS),
        ({"max_input_tokens": 100}, {"messages": [{"role": "user", "content": "x" * 700}]}, Dimension.MAX_INPUT_TOKENS),
        ({"max_total_tokens": 100}, {"max_tokens": 101}, Dimension.MAX_TOTAL_TOKENS),
    ],
)
def test_what_is_over_for_certain_is_refused(
    limits: dict[str, int], body: dict[str, Any], dimension: Dimension
) -> None:
    (most,) = limits.values()
    assert fit(read(**body), bounds(**limits), MODEL, COSTS, ("m",), None) == Exceeded(Layer.ENV, dimension, most)


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [("Hello", 1), (["a"], 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3], [4]], 3), (["a", "b"] * 50, 100)],
)
def test_the_answers_to_all_prompts_of_a_completion_are_held_to_the_maximum_together(prompt: Any, answers: int) -> None:
    of = bounds(max_output_tokens=20 * answers)
    call = read("/v1/completions", prompt=prompt, max_tokens=10, n=2)
    assert (call.choices, call.demand(None).output_tokens) == (2 * answers, 20 * answers)
    assert exceeded(call, of.maxima) is None
    assert exceeded(read("/v1/completions", prompt=prompt, max_tokens=11, n=2), of.maxima) is not None


def test_what_stands_beside_the_messages_may_be_read_too() -> None:
    of = bounds(spend_per_month_pusd=10**18)
    plain, more = (fitted(read(max_tokens=1, **extra), of).cost_pusd for extra in ({}, {"documents": ["x" * 1000]}))
    assert more - plain >= 1000 * INPUT_PUSD


def test_a_prompt_that_may_yet_be_short_enough_passes() -> None:
    call = read(messages=[{"role": "user", "content": "x" * 500}])
    assert call.prompt_tokens_estimate > 100
    assert exceeded(call, bounds(max_input_tokens=100).maxima) is None


def test_a_maximum_in_shadow_refuses_nothing_and_is_watched() -> None:
    of = bounds(max_output_tokens=10, shadow=True)
    call = read(max_tokens=11)
    assert fitted(call, of).call is call
    watched = exceeded(call, of.watched)
    assert watched is not None
    assert watched.dimension is Dimension.MAX_OUTPUT_TOKENS


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/chat/completions", {}, "max_tokens"),
        ("/v1/chat/completions", {"max_tokens": None, "max_completion_tokens": None}, "max_tokens"),
        ("/v1/responses", {"input": "Hello"}, "max_output_tokens"),
        ("/v1/messages", {}, "max_tokens"),
    ],
)
def test_an_open_length_is_bounded_in_the_field_of_the_endpoint(path: str, body: dict[str, Any], name: str) -> None:
    call = fitted(read(path, **body), bounds(max_output_tokens=300)).call
    assert written(call, name) == 300
    assert not call.bounded, "what is reserved of tokens stays a guess that gives way"
    assert msgspec.json.decode(call.body)["model"] == "m"


def test_a_completion_keeps_its_own_default_of_sixteen() -> None:
    call = read("/v1/completions", prompt="Hello")
    assert written(fitted(call, bounds(max_output_tokens=300)).call) == 16
    assert written(fitted(call, bounds(max_output_tokens=3)).call) == 3


def test_a_length_that_was_given_is_not_touched() -> None:
    call = read(max_tokens=50)
    assert fitted(call, bounds(max_output_tokens=300, spend_per_month_pusd=10**15)).call is call


def test_embeddings_are_bounded_by_their_input_alone() -> None:
    call = read("/v1/embeddings", input="Hello")
    assert fitted(call, bounds(max_output_tokens=1, max_total_tokens=50)).call is call


def test_an_open_length_costs_no_more_than_the_money_that_there_can_be() -> None:
    of = bounds(spend_per_month_pusd=2_000 * OUTPUT_PUSD)
    found = fitted(read(), of)
    length = written(found.call)
    assert length is not None
    assert 1500 < length < 2000
    assert found.cost_pusd <= 2_000 * OUTPUT_PUSD


def test_a_model_without_known_bounds_answers_within_the_default() -> None:
    assert written(fitted(read(model=UNKNOWN), bounds(spend_per_month_pusd=10**15), UNKNOWN).call) == 1024


texts = st.text(max_size=200)
bodies = st.one_of(
    st.fixed_dictionaries(
        {
            "messages": st.lists(
                st.fixed_dictionaries({"role": st.just("user"), "content": texts}), min_size=1, max_size=3
            )
        },
        optional={"max_tokens": st.integers(1, 4000), "n": st.integers(1, 4)},
    ).map(lambda body: ("/v1/chat/completions", body, 1)),
    st.fixed_dictionaries(
        {"prompt": st.lists(texts, min_size=1, max_size=4)}, optional={"max_tokens": st.integers(1, 4000)}
    ).map(lambda body: ("/v1/completions", body, len(body["prompt"]))),
    st.fixed_dictionaries({"query": texts, "documents": st.lists(texts, min_size=1, max_size=5)}).map(
        lambda body: ("/v1/rerank", body, len(body["documents"]))
    ),
)


@given(asked=bodies, known=st.booleans(), data=st.data())
def test_no_answer_costs_more_than_was_reserved(
    asked: tuple[str, dict[str, Any], int], known: bool, data: st.DataObject
) -> None:
    """Whatever the tokenizer: a byte is at most one token, and each document is read together with the query."""
    path, body, prompts = asked
    model = ModelBounds("m", 100_000, 4000) if known else UNKNOWN
    found = fitted(read(path, model, **body), bounds(spend_per_month_pusd=10**18), model)
    if path == "/v1/rerank":
        query = len(body["query"].encode())
        most_prompt = sum(len(text.encode()) + query for text in body["documents"])
    else:
        most_prompt = sum(len(str(each).encode()) for each in body.get("prompt", []))
        most_prompt += sum(len(message["content"].encode()) + 8 for message in body.get("messages", []))
    length = written(found.call) or 0
    output = data.draw(st.integers(0, length * body.get("n", 1) * prompts)) if length else 0
    usage = Usage(data.draw(st.integers(0, most_prompt)), output)
    assert COSTS.of(usage, "m", "eu") <= found.cost_pusd


@pytest.mark.parametrize(
    "body",
    [
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/y"}}]}
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://x.example/y"}}]}
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}]},
    ],
    ids=["image", "video", "audio"],
)
def test_what_only_the_engine_sees_is_taken_for_a_whole_context(body: dict[str, Any]) -> None:
    found = fitted(read(max_tokens=1, **body), bounds(spend_per_month_pusd=10**15))
    assert found.cost_pusd == 8000 * INPUT_PUSD + OUTPUT_PUSD
