"""A gateway that ends between any two steps of a request with an Idempotency-Key: its repeat is answered, and both of
them are charged once."""

import sys
from pathlib import Path

import pytest

from crosslogic.kernel.crash_points import ANSWERS, KILLED
from tests.flow.clouds import EmbeddedCloud, Row, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).parents[2]
# The second commit of a journal is that of the record of its first request.
WHOLE = ("answer.recorded", "journal.written:2", "journal.synced:2", "ledger.rows_added")
STREAMED = ("answer.recorded", "answer.kept", "journal.told:2", "flush.inserted")
HEADERS = {"idempotency-key": "once-and-for-all"}


def _started(directory: Path, point: str | None = None) -> EmbeddedCloud:
    # Where modules are looked for: this package, in a directory that is the program's own.
    env = {"PYTHONPATH": str(ROOT)}
    if point is None:
        return start_up(directory, "--nodes", 1, env=env)
    name = point if ":" in point else f"{point}:1"
    return start_up(directory, "--nodes", 1, env=env, command=(sys.executable, "-m", "tests.chaos.armed", name))


def _costs(cloud: EmbeddedCloud, number: int) -> dict[str, int]:
    """What each request of the ledger costs, once there are so many."""

    def found() -> list[Row] | None:
        rows = cloud.rows()
        return rows if len({row["request_id"] for row in rows}) >= number else None

    costs: dict[str, int] = {}
    for row in eventually(found, 20):
        costs[row["request_id"]] = costs.get(row["request_id"], 0) + int(row["cost_pusd"])
    return costs


@pytest.mark.parametrize(
    ("point", "stream"), [*((point, False) for point in WHOLE), *((point, True) for point in STREAMED)]
)
def test_wherever_the_gateway_ends_the_repeat_is_charged_once(tmp_path: Path, point: str, stream: bool) -> None:
    assert {*WHOLE, *STREAMED} >= ANSWERS
    body = chat("once only", max_tokens=20, stream=stream)
    cloud = _started(tmp_path, point)
    cloud.begin(body, headers=HEADERS).rest()
    assert cloud.program.process.wait(20) == KILLED
    cloud = _started(tmp_path)
    try:
        again = cloud.ask(body, headers=HEADERS, timeout_s=40)
        assert again.status == 200
        third = cloud.ask(body, headers=HEADERS)
        assert third.body == again.body
        assert "idempotent-replayed" in third.headers
        costs = _costs(cloud, 2)
        assert len(costs) == 2
        assert len([cost for cost in costs.values() if cost]) == 1
    finally:
        cloud.program.kill()
