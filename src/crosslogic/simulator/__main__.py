"""`python -m crosslogic.simulator` is `crosslogic simulate`."""

from crosslogic.simulator.command import main

main()
