"""From an intent to a specification, and its fields edited and checked."""

from typing import Any

import pytest

from crosslogic.compass.intent.model import BudgetConstraint, Burstiness, DeploymentIntent
from crosslogic.compass.specification.edit import edit, fields_of
from crosslogic.compass.specification.generate import specify
from crosslogic.compass.specification.model import ExperienceClass, Priority, QualityTier, Specification, UseCase
from crosslogic.compass.specification.templates import templates
from crosslogic.compass.specification.validate import Weight, validate
from crosslogic.compass.traffic.shapes import shape
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.money import PUSD_PER_USD

CHATBOT = specify(DeploymentIntent(use_case=UseCase.CHATBOT_CONVERSATIONAL, user_count=1000))


def test_the_table_of_use_cases_is_the_documents() -> None:
    rows = {row.use_case: row for row in templates().values()}
    assert set(rows) == set(UseCase)
    shown = {
        use_case.value: (row.prompt_tokens, row.output_tokens, row.ttft_p95_ms, row.itl_p95_ms, row.e2e_p95_ms)
        for use_case, row in rows.items()
    }
    assert shown == {
        "chatbot_conversational": (512, 256, 150, 25, 7000),
        "code_completion": (512, 256, 100, 20, 5000),
        "code_generation_detailed": (1024, 1024, 300, 30, 25_000),
        "translation": (1024, 1024, 400, 35, 35_000),
        "content_generation": (1024, 1024, 500, 35, 40_000),
        "summarization_short": (4096, 512, 600, 30, 18_000),
        "document_analysis_rag": (4096, 512, 600, 30, 18_000),
        "long_document_summarization": (10_240, 1536, 1000, 40, 60_000),
        "research_legal_analysis": (10_240, 1536, 2000, 45, 90_000),
    }


def test_users_become_requests() -> None:
    traffic = CHATBOT.traffic
    assert traffic.mean_qps == pytest.approx(1000 * 0.2 * 0.4 / 60)
    assert traffic.peak_qps == pytest.approx(2 * traffic.mean_qps)
    assert traffic.prompt_tokens.mean == 512
    assert traffic.prompt_tokens.p95 > 2 * 512  # real prompts spread
    assert traffic.burstiness_cv > 1.5  # never plain Poisson
    assert "1,000 users, 20% of them active" in traffic.basis[0]


def test_users_at_the_same_time_are_all_active() -> None:
    traffic = specify(DeploymentIntent(concurrent_users=600)).traffic
    assert traffic.mean_qps == pytest.approx(600 * 0.4 / 60)


def test_what_is_told_wins_over_what_is_derived() -> None:
    told = specify(
        DeploymentIntent(
            use_case=UseCase.TRANSLATION,
            user_count=1000,
            expected_qps=12.5,
            peak_qps=40,
            prompt_length_avg=200,
            generation_length_avg=100,
            generation_length_p95=150,
            burstiness_pattern=Burstiness.HIGH,
            target_ttft_p95_ms=222,
            priority=Priority.COST,
            reliability_target=0.99,
            budget=BudgetConstraint(per_month_pusd=5000 * PUSD_PER_USD),
        )
    )
    assert (told.traffic.mean_qps, told.traffic.peak_qps) == (12.5, 40)
    assert told.traffic.prompt_tokens.mean == 200
    assert (told.traffic.output_tokens.mean, told.traffic.output_tokens.p95) == (100, 150)
    assert told.traffic.burstiness_cv == shape("servegen_m_mid").burstiness_cv
    assert told.slo.ttft_p95_ms == 222
    assert told.budget.per_month_pusd == 5000 * PUSD_PER_USD
    assert told.availability == 0.99


def test_accuracy_first_asks_for_a_model_of_quality() -> None:
    assert specify(DeploymentIntent(priority=Priority.ACCURACY)).quality is QualityTier.HIGH
    assert CHATBOT.quality is None


def test_another_class_than_the_use_cases_has_its_own_targets() -> None:
    slow = specify(DeploymentIntent(use_case=UseCase.CHATBOT_CONVERSATIONAL, experience_class=ExperienceClass.BATCH))
    assert (slow.slo.ttft_p95_ms, slow.slo.itl_p95_ms) == (2000, 45)
    assert [found for found in validate(slow) if found.weight is Weight.ERROR] == []


@pytest.mark.parametrize("use_case", list(UseCase))
def test_no_use_case_contradicts_itself_beyond_a_warning(use_case: UseCase) -> None:
    specification = specify(DeploymentIntent(use_case=use_case))
    found = validate(specification)
    assert [finding for finding in found if finding.weight is Weight.ERROR] == []
    assert bool(found) is specification.slo.e2e_binds(specification.traffic)


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"traffic.peak_qps": 0.1}, "traffic.peak_qps", "below the mean"),
        ({"traffic.peak_qps": 1e12}, "traffic.peak_qps", "more than a million"),
        ({"traffic.mean_qps": -3}, "traffic.mean_qps", "a rate of -3 requests/s is none"),
        ({"slo.e2e_p95_ms": 100}, "slo.e2e_p95_ms", "cannot end within 100 ms and begin only within 150 ms"),
        ({"slo.e2e_p95_ms": 200}, "slo.e2e_p95_ms", "leave 0.20 ms for each"),
        ({"slo.itl_p95_ms": 0}, "slo.itl_p95_ms", "a target of 0 ms cannot be met"),
        ({"users": -5}, "users", "-5 users are none"),
        ({"availability": 1.0}, "availability", "cannot be promised"),
        ({"budget.per_month_pusd": 0}, "budget.per_month_pusd", "buys nothing"),
        ({"wishes.preferred_gpus": ["abacus"]}, "wishes.preferred_gpus", "is not known"),
        ({"wishes.preferred_models": ["nobody/nothing"]}, "wishes.preferred_models", "in no catalogue"),
        (
            {"wishes.preferred_gpus": ["h100_sxm"], "wishes.excluded_gpus": ["h100_sxm"]},
            "wishes.excluded_gpus",
            "both wanted and excluded",
        ),
        ({"wishes.max_gpus": 2, "wishes.tensor_parallel": 4}, "wishes.tensor_parallel", "does not fit into the 2"),
        ({"context_tokens": 100}, "context_tokens", "does not hold an average request"),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], field: str, sentence: str) -> None:
    found = validate(edit(CHATBOT, changes))
    assert [finding.field for finding in found if finding.weight is Weight.ERROR] == [field]
    assert sentence in found[0].sentence


def test_a_new_mean_keeps_the_shape() -> None:
    edited = edit(CHATBOT, {"traffic.prompt_tokens.mean": 1024}).traffic.prompt_tokens
    assert edited.mean == 1024
    assert edited.p95 == pytest.approx(2 * CHATBOT.traffic.prompt_tokens.p95)
    assert edited.histogram


def test_a_new_use_case_brings_its_lengths_and_targets_and_keeps_the_rate() -> None:
    edited = edit(CHATBOT, {"use_case": "document_analysis_rag"})
    assert edited.slo.ttft_p95_ms == 600
    assert edited.traffic.prompt_tokens.mean == 4096
    assert edited.traffic.mean_qps == CHATBOT.traffic.mean_qps


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"slo.ttft": 3}, "has no field 'slo.ttft'"),
        ({"ttft_p95_ms": 3}, "did you mean slo.ttft_p95_ms"),
        ({"priority": "speed"}, "priority cannot be 'speed'"),
        ({"slo.ttft_p95_ms": "soon"}, "slo.ttft_p95_ms cannot be 'soon'"),
        ({"traffic": {}}, "has no field 'traffic'"),
        ({f"field_{i}": 0 for i in range(101)}, "too many"),
    ],
)
def test_what_is_no_edit_is_refused_in_words(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        edit(CHATBOT, changes)


def test_every_field_shown_can_be_set_to_what_it_is() -> None:
    fields = fields_of(CHATBOT)
    same: Specification = edit(CHATBOT, {name: fields[name] for name in fields if ".p95" not in name})
    assert fields_of(same) == fields
