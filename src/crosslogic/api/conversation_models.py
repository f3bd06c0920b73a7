"""Bodies of the planner. Unknown fields are refused here as well."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from pydantic import Field, StringConstraints

from crosslogic.api.compass_models import shown
from crosslogic.api.models import Body, View, Word
from crosslogic.compass.conversation.model import MOST_SAID, Conversation, Exchange, Revision, StoredSpecification
from crosslogic.compass.conversation.recommended import Recommended
from crosslogic.compass.conversation.reply import Understanding, summary
from crosslogic.compass.intent.ports import Turn
from crosslogic.compass.scenarios.change import compare
from crosslogic.compass.specification.edit import fields_of
from crosslogic.compass.specification.validate import Finding, validate
from crosslogic.kernel.money import PUSD_PER_USD

Said = Annotated[str, StringConstraints(max_length=MOST_SAID)]
Changes = Annotated[
    dict[str, Any], Field(description='dotted fields and what they become, such as {"slo.ttft_p95_ms": 200}')
]


class ConversationCreate(Body):
    message: Said | None = Field(default=None, description="the first message; null: say it later")


class MessageCreate(Body):
    message: Said
    recommend: bool = Field(default=False, description="recommend at once for what the message led to, and keep that")


class SpecificationCreate(Body):
    description: Said = Field(default="", description="in words; empty: the usual chatbot, changed by `changes`")
    changes: Changes = Field(default_factory=dict)
    name: Word | None = None


class SpecificationChange(Body):
    changes: Changes = Field(default_factory=dict)
    name: Word | None = None
    revision: int | None = Field(default=None, description="the one that was seen; a newer one is not overwritten")


class ConversationView(View):
    id: str
    title: str
    turns: int
    specification_id: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, conversation: Conversation) -> "ConversationView":
        return cls.model_validate(conversation)


class TurnView(View):
    role: str
    content: str

    @classmethod
    def of(cls, turn: Turn) -> "TurnView":
        return cls(role=turn.role.value, content=turn.content)


class ConversationDetail(ConversationView):
    messages: list[TurnView]


class FindingView(View):
    field: str
    weight: str = Field(description="`error`: cannot be met; `warning`: perhaps not meant")
    sentence: str

    @classmethod
    def of(cls, finding: Finding) -> "FindingView":
        return cls(field=finding.field, weight=finding.weight.value, sentence=finding.sentence)


class QuestionView(View):
    field: str
    text: str
    why: str
    choices: tuple[str, ...]


class SpecificationView(View):
    """`fields` are those that can be edited, by the names that `changes` takes."""

    id: str
    name: str
    revision: int
    summary: str
    fields: dict[str, Any]
    basis: tuple[str, ...] = Field(description="where its traffic is from")
    findings: list[FindingView]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, stored: StoredSpecification) -> "SpecificationView":
        spec = stored.specification
        return cls(
            id=stored.id,
            name=stored.name,
            revision=stored.revision,
            summary=summary(spec),
            fields=fields_of(spec),
            basis=spec.traffic.basis,
            findings=[FindingView.of(each) for each in validate(spec)],
            created_at=stored.created_at,
            updated_at=stored.updated_at,
        )


class RevisionView(View):
    revision: int
    reason: str
    changes: dict[str, Any]
    fields: dict[str, Any]
    actor: str
    at: datetime

    @classmethod
    def of(cls, revision: Revision) -> "RevisionView":
        return cls(
            revision=revision.revision,
            reason=revision.reason,
            changes=revision.changes,
            fields=fields_of(revision.specification),
            actor=revision.actor,
            at=revision.at,
        )


class UnderstandingView(View):
    intent: dict[str, Any] = Field(description="what was told, field by field; null: nothing was said of it")
    notes: tuple[str, ...]
    questions: list[QuestionView] = Field(description="only those whose answers change the recommendation")

    @classmethod
    def of(cls, understanding: Understanding) -> "UnderstandingView":
        return cls(
            intent=msgspec.to_builtins(understanding.intent),
            notes=understanding.notes,
            questions=[QuestionView.model_validate(each) for each in understanding.questions],
        )


class RecommendedView(View):
    """A recommendation as it was made for a revision, beside the one before it."""

    id: str
    revision: int = Field(description="of the specification")
    best: str | None = Field(description="id of the first option; null: nothing meets all targets")
    usd_per_month: float | None
    recommendation: dict[str, Any]
    differences: list[dict[str, Any]] = Field(description="from the recommendation before; empty for the first")
    actor: str
    at: datetime

    @classmethod
    def of(cls, made: Recommended, before: Recommended | None = None) -> "RecommendedView":
        lines = () if before is None else compare(before.outcome, made.outcome).differences
        document = shown(made.outcome)
        del document["rejected"]  # only the nearest were kept
        return cls(
            id=made.id,
            revision=made.revision,
            best=made.best,
            usd_per_month=None if made.per_month_pusd is None else round(made.per_month_pusd / PUSD_PER_USD, 2),
            recommendation=document,
            differences=[msgspec.to_builtins(line) for line in lines],
            actor=made.actor,
            at=made.at,
        )


class ExchangeView(View):
    conversation: ConversationView
    reply: str
    understanding: UnderstandingView
    specification: SpecificationView
    extractor: str = Field(description="`deterministic` or `llm`")
    note: str | None = Field(description="why a language model did not understand it, where one was asked")
    recommended: RecommendedView | None = Field(
        default=None, description="null: not asked for, or the specification contradicts itself"
    )

    @classmethod
    def of(cls, exchange: Exchange, recommended: RecommendedView | None = None) -> "ExchangeView":
        return cls(
            recommended=recommended,
            conversation=ConversationView.of(exchange.conversation),
            reply=exchange.reply.content,
            understanding=UnderstandingView.of(exchange.understanding),
            specification=SpecificationView.of(exchange.specification),
            extractor=exchange.extractor,
            note=exchange.note,
        )


class SpecifiedView(View):
    specification: SpecificationView
    understanding: UnderstandingView
