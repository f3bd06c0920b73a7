"""The command `crosslogic`.

Exit codes: 0 done; 1 it was tried and failed; 2 the command line, the configuration or a needed resource is
wrong, and nothing was started; 130 interrupted. A failure that we foresaw is one sentence on standard error.
"""

import os
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
    "agent": Place("crosslogic.cli.agent", "Run a node: join the fleet, keep an engine running, report.", "agent"),
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
    "benchmarks": Place("crosslogic.cli.benchmarks", "Import, measure and list how fast models run on GPUs."),
    "plan": Place("crosslogic.cli.plan", "Plan a deployment from a sentence: model, GPUs, replicas, cost.", "plan"),
    "deployments": Place(
        "crosslogic.cli.deployments", "See, apply, roll back, observe and delete planned deployments."
    ),
    "catalog": Place("crosslogic.cli.catalog", "See and import what planning builds on: models, GPUs, prices."),
    "capacity": Place("crosslogic.cli.capacity", "Reserve, list, change and cancel capacity."),
    "resources": Place("crosslogic.cli.resources", "Share out GPU memory, CPU cores and concurrency."),
    "exports": Place("crosslogic.cli.exports", "Choose how usage is exported to the payment provider; see and retry."),
    "reconcile": Place("crosslogic.cli.reconcile", "Compare all books of billing; repair on demand; disputes."),
    "licence": Place("crosslogic.cli.licence", "Make and check licence files of air-gapped sites."),
    "payments": Place("crosslogic.cli.payments", "List payments and refunds, charge invoices, give money back."),
    "nodes": Place("crosslogic.cli.nodes", "List, register, drain and revoke nodes; make join tokens."),
    "cluster": Place("crosslogic.cli.cluster", "Show the processes that run, and which of them leads.", "cluster"),
    "cache": Place("crosslogic.cli.cache", "List, inspect, delete and clear cached answers."),
    "models": Place("crosslogic.cli.models", "Register models, deploy them, and roll new versions out."),
    "notices": Place(
        "crosslogic.cli.notices", "See what was raised, and choose who is told by mail, Slack or webhook."
    ),
    "finops": Place("crosslogic.cli.finops", "Sum what nodes cost against what their tokens earn.", "finops"),
    "forecast": Place("crosslogic.cli.forecast", "Foresee usage, and the nodes that it takes."),
    "queue": Place("crosslogic.cli.queue", "See who waits for a node, and take requests out."),
    "regions": Place("crosslogic.cli.regions", "List regions, what they cost, and where they fall back to."),
    "usage": Place("crosslogic.cli.usage", "Sum what an organisation used."),
    "prices": Place("crosslogic.cli.prices", "Draft, publish, retire and compare prices."),
    "credits": Place("crosslogic.cli.credits", "List, grant and void credits."),
    "invoices": Place("crosslogic.cli.invoices", "Close periods; list, preview, issue, void and credit invoices."),
    "version": Place("crosslogic.cli.version", "Print the version."),
}


def main() -> None:
    """Entry point of the installed command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    # Matrices of the planner are small: threads of the linear algebra wait for one another a hundred times as long as
    # they compute on a busy machine. It is read when NumPy is first imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
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
