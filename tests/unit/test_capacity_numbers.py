"""What the planner computes by itself rather than import a second of SciPy: held against definitions."""

import subprocess
import sys

import numpy as np
import pytest

from crosslogic.compass.capacity.surface import _Grid


def test_a_grid_is_exact_at_its_points_and_linear_between() -> None:
    axes = [np.array([0.0, 1.0, 3.0]), np.array([2.0, 5.0])]
    values = np.array([[[a + 10 * b, a * b] for b in axes[1]] for a in axes[0]])
    grid = _Grid(axes, values)
    every = np.array([[a, b] for a in axes[0] for b in axes[1]])
    assert grid(every) == pytest.approx(values.reshape(-1, 2))
    # sums are linear everywhere, products within a cell in each direction alone
    assert grid(np.array([[2.0, 3.5], [0.25, 4.0]]))[:, 0] == pytest.approx([37.0, 40.25])
    assert grid(np.array([[2.0, 5.0], [3.0, 4.0]]))[:, 1] == pytest.approx([10.0, 12.0])


def test_a_plan_in_the_shell_loads_neither_scipy_nor_settings_nor_an_http_client() -> None:
    """Each takes some tenths of a second, every time."""
    code = "import crosslogic.cli.plan, sys; print([m for m in ('scipy', 'httpx', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
