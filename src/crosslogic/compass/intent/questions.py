"""What to ask next: only what changes the recommendation, and nothing that was declined. Pure.

A question matters where its plausible answers lead to specifications that need a different deployment: another load,
or other lengths and targets.

Invariant: at most `MOST_AT_ONCE` questions, the one that changes most first; a complete intent gets none.
"""

from collections.abc import Callable

import msgspec

from crosslogic.compass.intent.model import DeploymentIntent, Level
from crosslogic.compass.specification.generate import specify
from crosslogic.compass.specification.model import Priority, Specification, UseCase

MOST_AT_ONCE = 2
_OTHER_LOAD = 2.0

Differs = Callable[[Specification, Specification], bool]


class Question(msgspec.Struct, frozen=True):
    """`field` of the intent that it asks for; `why` in a few words; `choices` where they are few."""

    field: str
    text: str
    why: str
    choices: tuple[str, ...] = ()


_USE_CASES = (
    "a chatbot",
    "code completion",
    "code generation",
    "translation",
    "writing content",
    "short summaries",
    "questions about documents",
    "summaries of long documents",
    "research and legal analysis",
)


def differs(one: Specification, other: Specification) -> bool:
    """Whether two specifications ask for different deployments, as far as can be told without planning both."""
    loads = sorted((_load(one), _load(other)))
    targets = (one.slo, one.priority, one.quality) != (other.slo, other.priority, other.quality)
    return loads[1] > _OTHER_LOAD * loads[0] or targets


def _load(spec: Specification) -> float:
    """Tokens a second at the peak; a token of an answer costs about what ten of a prompt do."""
    traffic = spec.traffic
    return traffic.peak_qps * (traffic.prompt_tokens.mean / 10 + traffic.output_tokens.mean)


def questions(intent: DeploymentIntent, matters: Differs = differs) -> tuple[Question, ...]:
    """The next ones to ask; `matters` says whether two specifications lead to different recommendations."""
    open_ones = []
    if intent.use_case is None:
        open_ones.append(
            (
                Question(
                    "use_case",
                    "What will the model do?",
                    "it decides how long prompts and answers are, and how fast they have to come",
                    _USE_CASES,
                ),
                [
                    msgspec.structs.replace(intent, use_case=UseCase.CODE_COMPLETION),
                    msgspec.structs.replace(intent, use_case=UseCase.LONG_DOCUMENT_SUMMARIZATION),
                ],
            )
        )
    rates = (
        intent.user_count,
        intent.concurrent_users,
        intent.expected_qps,
        intent.peak_qps,
        intent.target_throughput_rps,
    )
    if all(rate is None for rate in rates):
        open_ones.append(
            (
                Question(
                    "user_count",
                    "How many people will use it, or how many requests a second arrive at the peak?",
                    "it decides how many GPUs are needed",
                ),
                [msgspec.structs.replace(intent, user_count=users) for users in (50, 5000)],
            )
        )
    high = (intent.accuracy_priority, intent.latency_priority, intent.cost_priority).count(Level.HIGH)
    if high > 1 and intent.priority is None:
        open_ones.append(
            (
                Question(
                    "priority",
                    "Which matters most where not all can be had?",
                    "they pull in different directions",
                    ("accuracy", "latency", "cost"),
                ),
                [msgspec.structs.replace(intent, priority=aim) for aim in (Priority.ACCURACY, Priority.COST)],
            )
        )
    asked = [
        question
        for question, answers in open_ones
        if question.field not in intent.declined and matters(specify(answers[0]), specify(answers[-1]))
    ]
    return tuple(asked[:MOST_AT_ONCE])
