"""What is said back: what was understood and assumed, what contradicts, and what would still change the plan. Pure."""

import msgspec

from crosslogic.catalog.cards import find_card
from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.intent.model import DeploymentIntent
from crosslogic.compass.intent.questions import Question, questions
from crosslogic.compass.specification.generate import specify
from crosslogic.compass.specification.model import Specification
from crosslogic.compass.specification.templates import template
from crosslogic.compass.specification.validate import Finding, validate

_MODELS_NAMED = 3


class Understanding(msgspec.Struct, frozen=True):
    """All that follows from an intent without planning."""

    intent: DeploymentIntent
    specification: Specification
    findings: tuple[Finding, ...]
    questions: tuple[Question, ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """In words, as a conversation goes."""
        lines = [summary(self.specification)]
        lines += self.notes
        lines += (finding.sentence for finding in self.findings)
        lines += (question.text for question in self.questions)
        return "\n".join(_sentence(line) for line in lines)


def understand(intent: DeploymentIntent) -> Understanding:
    specification = specify(intent)
    return Understanding(
        intent=intent,
        specification=specification,
        findings=tuple(validate(specification)),
        questions=questions(intent),
        notes=tuple(_notes(intent)),
    )


def _notes(intent: DeploymentIntent) -> list[str]:
    notes = list(intent.doubts)
    notes += (
        f"{name} is no model of the catalogue; import its config.json to plan with it" for name in intent.unknown_models
    )
    notes += (f"{name} is no GPU that is known, so it is not considered" for name in intent.unknown_gpus)
    if intent.use_case is None:
        notes.append("What it is for was not said; it is planned as a chatbot")
    if intent.user_count_min is not None and intent.user_count_max is not None:
        notes.append(
            f"Between {intent.user_count_min:,} and {intent.user_count_max:,} users were said; "
            f"it is planned for {intent.user_count:,}"
        )
    return notes


def summary(spec: Specification) -> str:
    traffic, slo = spec.traffic, spec.slo
    what = template(spec.use_case).description[0].lower() + template(spec.use_case).description[1:]
    targets = [
        f"{name} {value:g} ms"
        for name, value in (
            ("first token", slo.ttft_p95_ms),
            ("each further", slo.itl_p95_ms),
            ("whole answer", slo.e2e_p95_ms),
        )
        if value is not None
    ]
    wishes = spec.wishes
    wanted = _named(wishes.preferred_gpus, wishes.preferred_models)
    unwanted = _named(wishes.excluded_gpus, wishes.excluded_models)
    only = (f", with {wanted}" if wanted else "") + (f", without {unwanted}" if unwanted else "")
    return (
        f"{spec.use_case.value.replace('_', ' ')} ({what}): "
        f"{traffic.mean_qps:.3g} requests/s, {traffic.peak_qps:.3g} at the peak "
        f"({traffic.basis[0] if traffic.basis else 'as told'}), prompts of {traffic.prompt_tokens.mean:,.0f} and "
        f"answers of {traffic.output_tokens.mean:,.0f} tokens; 95% within: {', '.join(targets)}; "
        f"priority {spec.priority.value}{only}"
    )


def _named(gpus: tuple[str, ...], models: tuple[str, ...]) -> str:
    names = [gpu.name for gpu in map(find_gpu, gpus) if gpu is not None]
    known = [model for model in models if find_card(model)]
    names += known[:_MODELS_NAMED]
    if len(known) > _MODELS_NAMED:
        names.append(f"{len(known) - _MODELS_NAMED} more")
    return ", ".join(names)


def _sentence(line: str) -> str:
    line = line[:1].upper() + line[1:]
    return line if line.endswith((".", "?", "!")) else f"{line}."
