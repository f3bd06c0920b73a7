"""What tests of the planner share: one planner over the packaged rows, and a specification to change."""

from functools import cache

from crosslogic.compass.capacity.pooling import Pool
from crosslogic.compass.capacity.rows import packaged_rows
from crosslogic.compass.ranking.planner import Planner
from crosslogic.compass.specification.lengths import Lengths
from crosslogic.compass.specification.model import (
    ExperienceClass,
    Slo,
    Specification,
    TrafficProfile,
    UseCase,
    Wishes,
)

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
TRAFFIC = TrafficProfile(Lengths(512, 1000), Lengths(256, 500), mean_qps=10.0, peak_qps=20.0, burstiness_cv=2.0)
SPEC = Specification(
    use_case=UseCase.CHATBOT_CONVERSATIONAL,
    experience=ExperienceClass.CONVERSATIONAL,
    traffic=TRAFFIC,
    slo=Slo(300.0, 25.0, 7000.0, e2e_output_tokens=256.0),
    wishes=Wishes(preferred_models=(LLAMA,), preferred_gpus=("h100_sxm",)),
)


@cache
def planner() -> Planner:
    return Planner(Pool(packaged_rows()))
