"""The nine use cases: how long their prompts and answers are, how fast they have to be, how busy their users.

Invariant: the packaged table is read once and never changes in a process, and every use case has its row.
"""

from functools import cache
from importlib import resources

import msgspec

from crosslogic.compass.specification.model import ExperienceClass, Slo, UseCase


class Template(msgspec.Struct, frozen=True):
    """One row of the documents' table, with the habits of its users."""

    use_case: UseCase
    description: str
    prompt_tokens: int
    output_tokens: int
    experience: ExperienceClass
    ttft_p95_ms: float
    itl_p95_ms: float
    e2e_p95_ms: float
    active_share: float  # of all users, at a usual moment of the busy hours
    requests_per_active_user_minute: float
    peak_over_mean: float
    output_shape: str  # of a real trace
    burstiness_shape: str
    rationale: str
    prompt_shape: str | None = None
    prompt_p95_over_mean: float = 1.0  # where no trace has such prompts

    @property
    def slo(self) -> Slo:
        return Slo(self.ttft_p95_ms, self.itl_p95_ms, self.e2e_p95_ms, e2e_output_tokens=self.output_tokens)


class _File(msgspec.Struct):
    source: str
    licence: str
    use_cases: list[Template]


@cache
def templates() -> dict[UseCase, Template]:
    data = resources.files("crosslogic.compass.specification").joinpath("data/use_cases.json").read_bytes()
    return {each.use_case: each for each in msgspec.json.decode(data, type=_File).use_cases}


def template(use_case: UseCase) -> Template:
    return templates()[use_case]


CLASS_TARGETS = {
    ExperienceClass.INSTANT: (150.0, 25.0),
    ExperienceClass.CONVERSATIONAL: (300.0, 30.0),
    ExperienceClass.INTERACTIVE: (500.0, 35.0),
    ExperienceClass.DEFERRED: (1000.0, 40.0),
    ExperienceClass.BATCH: (2000.0, 45.0),
}
"""TTFT and ITL in ms, for a class that somebody chose against the one of the use case; else the use case's row wins."""
