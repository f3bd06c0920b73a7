"""`crosslogic …` that ends at a crash point as `kill -9` would: python -m tests.chaos.armed POINT ARGUMENTS…"""

import sys

from crosslogic.cli.main import run
from crosslogic.kernel import crash_points

if __name__ == "__main__":
    crash_points.arm(sys.argv[1])
    sys.exit(run(sys.argv[2:]))
