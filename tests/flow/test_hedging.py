"""A second node for streams that begin late; off unless it is asked for."""

import time
from collections.abc import Iterator

import pytest
import yaml

from tests.flow.clouds import chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually
from tests.flow.scripted import ScriptedNodes
from tests.flow.storyteller import STORY, WORDS, Storyteller, late, reset_at_once, silence
from tests.flow.test_fault_matrix import CONFIG, Matrix, text_of

FIRST_TOKEN_S = 5.0


@pytest.fixture(scope="module")
def hedging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    directory = tmp_path_factory.mktemp("hedging")
    with ScriptedNodes("story", 2) as nodes:
        listed = [{"endpoint": url, "type": "vllm", "models": ["story"]} for url in nodes.urls]
        # Who is late is waited for so long that a second node has begun by then, however busy this machine is.
        waits = {"timeouts": CONFIG["timeouts"] | {"first_token_s": FIRST_TOKEN_S}}  # type: ignore[operator]
        config = CONFIG | waits | {"nodes": listed, "models": [], "scheduling": {"hedge_after_s": 0.1}}
        (directory / "crosslogic.yaml").write_text(yaml.safe_dump(config))
        cloud = start_up(directory, "--config", directory / "crosslogic.yaml")
        yield Matrix(cloud, {"story": nodes})
        cloud.program.kill()


def test_the_first_that_begins_answers_and_the_other_is_given_up(hedging: Matrix) -> None:
    script = hedging.tell("story", Storyteller(late(FIRST_TOKEN_S - 0.5)))
    reply = hedging.ask()
    assert text_of(reply) == STORY
    assert reply.seconds < FIRST_TOKEN_S - 1.0
    assert sorted(script.nodes) == [0, 1]
    eventually(lambda: hedging.nodes["story"].turns[0].left_s, 10)
    row = hedging.row(reply)
    assert (row["outcome"], row["completion_tokens"]) == ("completed", len(WORDS))
    assert len([one for one in hedging.cloud.rows() if one["request_id"] == row["request_id"]]) == 1
    hedging.healthy_at_once()


def test_the_late_one_may_still_be_first(hedging: Matrix) -> None:
    hedging.nodes["story"].forget()
    for _ in range(20):
        hedging.ask()  # each earns a twentieth of a hedge
    script = hedging.tell("story", Storyteller(late(0.3), late(FIRST_TOKEN_S - 0.5)))
    reply = hedging.ask()
    assert text_of(reply) == STORY
    assert reply.seconds < FIRST_TOKEN_S - 1.0
    assert len(script.asked) == 2
    hedging.healthy_at_once()


def test_only_some_requests_are_hedged(hedging: Matrix) -> None:
    script = hedging.tell("story", Storyteller(always=late(0.2)))
    for _ in range(6):
        assert text_of(hedging.ask()) == STORY
    assert len(script.asked) <= 7, "one in twenty, and what was saved up"


def test_a_caller_that_leaves_ends_both(hedging: Matrix) -> None:
    hedging.tell("story", Storyteller())
    for _ in range(20):
        hedging.ask()
    hedging.nodes["story"].turns.clear()
    hedging.tell("story", Storyteller(always=silence))
    conversation = hedging.cloud.begin(chat(model="story", stream=True))
    turns = hedging.nodes["story"].turns
    eventually(lambda: len(turns) == 2, 10)
    conversation.close()
    eventually(lambda: all(turn.left_s for turn in turns), 10)


def test_a_caller_that_leaves_after_the_second_has_failed_ends_the_first(hedging: Matrix) -> None:
    hedging.tell("story", Storyteller())
    for _ in range(20):
        hedging.ask()
    hedging.nodes["story"].turns.clear()
    script = hedging.tell(
        "story", Storyteller(silence, reset_at_once, reset_at_once)
    )  # one that was connected is asked anew
    conversation = hedging.cloud.begin(chat(model="story", stream=True))
    turns = hedging.nodes["story"].turns
    eventually(lambda: len(script.asked) >= 2, 10, 0.005)
    time.sleep(0.2)
    conversation.close()
    left_s = time.monotonic()
    assert eventually(lambda: turns[0].left_s, 10) - left_s < FIRST_TOKEN_S / 2
