"""What people read about a plan says all that was understood, and no sentence contradicts itself."""

from msgspec.structs import replace

from crosslogic.compass.conversation.reply import summary, understand
from crosslogic.compass.intent.deterministic import extract
from crosslogic.compass.intent.ports import Role, Turn
from crosslogic.compass.ranking.explain import missed
from crosslogic.compass.ranking.sizing import Missed


def test_what_must_not_be_used_is_said_back_as_what_must() -> None:
    understood = understand(
        extract([Turn(Role.USER, "a chatbot for 1000 users on H100, but not on A100 and no gpt-oss-20b")])
    )
    said = summary(understood.specification)
    assert said.startswith("chatbot conversational (")
    assert "with H100" in said
    assert "without" in said
    assert "gpt-oss-20b" in said.partition("without")[2]


def test_many_excluded_models_are_counted_and_not_all_listed() -> None:
    spec = understand(extract([Turn(Role.USER, "a chatbot for 1000 users")])).specification
    models = ("openai/gpt-oss-20b", "openai/gpt-oss-120b", "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B")
    said = summary(replace(spec, wishes=replace(spec.wishes, excluded_models=models)))
    assert said.endswith("without openai/gpt-oss-20b, openai/gpt-oss-120b, Qwen/Qwen3-32B, 1 more")


def test_a_target_missed_by_a_hair_is_no_number_greater_than_itself() -> None:
    spec = understand(extract([Turn(Role.USER, "a chatbot for 1000 users")])).specification
    assert missed(Missed("ttft", 150.2, 150.0), spec).startswith("p95 TTFT a little over 150 ms even")
    assert missed(Missed("ttft", 151.0, 150.0), spec).startswith("p95 TTFT 151 ms > 150 ms even")
