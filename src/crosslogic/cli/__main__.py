"""`python -m crosslogic.cli`, where the installed command is not on the path."""

from crosslogic.cli.main import main

main()
