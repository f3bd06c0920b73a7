"""The command `crosslogic`.

Exit codes: 0 done; 1 it was tried and failed; 2 the command line, the configuration or a needed resource is
wrong, and nothing was started; 130 interrupted. A failure that we foresaw is one sentence on standard error.
"""

import sys

from crosslogic.cli.lazy import LazyGroup, Place
from crosslogic.kernel.errors import ConfigurationError, CrossLogicError

FAILED = 1
MISCONFIGURED = 2
INTERRUPTED = 130

PLACES = {
    "up": Place("crosslogic.cli.up", "Run the whole cloud in this terminal, on one port, with nothing to install."),
    "gateway": Place("crosslogic.cli.gateway", "Run gateway workers: the OpenAI-compatible edge."),
    "control": Place("crosslogic.cli.control", "Run the management API, node registry and periodic jobs."),
    "simulate": Place("crosslogic.simulator.command", "Run a simulated vLLM node.", "simulate"),
    "migrate": Place("crosslogic.cli.migrate", "Bring the database to the schema of this version."),
    "config": Place("crosslogic.cli.config", "Check the configuration, or show what counts."),
    "doctor": Place("crosslogic.cli.doctor", "Look at every dependency: what is wrong, and what to do."),
    "keys": Place("crosslogic.cli.keys", "Create, list, rotate, suspend and revoke API keys."),
    "orgs": Place("crosslogic.cli.orgs", "Create, list, change and suspend organisations."),
    "envs": Place("crosslogic.cli.envs", "Create, list, change and suspend environments."),
    "users": Place("crosslogic.cli.users", "Create, list and change the people of an organisation."),
    "plans": Place("crosslogic.cli.plans", "List and change what is sold."),
    "operators": Place("crosslogic.cli.operators", "Create, list and revoke those who run the platform."),
    "audit": Place("crosslogic.cli.audit", "Read the audit log, and verify that nobody changed it."),
    "nodes": Place("crosslogic.cli.nodes", "List, register and drain nodes."),
    "usage": Place("crosslogic.cli.usage", "Sum what an organisation used."),
    "version": Place("crosslogic.cli.version", "Print the version."),
}


def main() -> None:
    """Entry point of the installed command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    group = LazyGroup(PLACES, name="crosslogic", help="An OpenAI-compatible inference cloud on GPUs you own or rent.")
    try:
        group.main(args=arguments or ["--help"], prog_name="crosslogic")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except CrossLogicError as error:
        sys.stderr.write(f"crosslogic: {error}\n")
        return MISCONFIGURED if isinstance(error, ConfigurationError) else FAILED
    return 0
