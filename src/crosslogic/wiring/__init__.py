"""The only place that builds objects: adapters are chosen by the settings here, and nowhere else."""

from crosslogic.wiring.control import run_control
from crosslogic.wiring.embedded import run_up
from crosslogic.wiring.workers import run_gateway

__all__ = ["run_control", "run_gateway", "run_up"]
