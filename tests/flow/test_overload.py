"""Fairness and waits under overload, on real processes: `bench.overload` in short.

The bound is wider than that of the measurement: this machine does other things meanwhile.
"""

from pathlib import Path

from bench.overload import Measurement
from bench.overload_site import Site
from bench.processes import Processes

SECONDS = 8.0


def test_under_overload_shares_are_equal_and_nobody_is_left_waiting(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        measurement = Measurement(Site(processes, tmp_path, speedup=0.5), SECONDS)
        measurement.per_s = 32.0  # what these nodes do on an idle machine
        jain, flooded = measurement.flood()
        endings = {row.promise: row for row in measurement.endings([flooded])}
    assert jain.found >= 0.95
    assert endings["every request served or refused by its deadline"].kept
    assert endings["refusals with Retry-After"].kept
    assert sum(asked.shed for asked in flooded.asked) > 0.2 * len(flooded.asked)  # it was an overload
