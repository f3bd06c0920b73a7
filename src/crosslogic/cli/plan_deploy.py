"""`crosslogic plan --deploy`: what was recommended becomes a deployment, through the management API of a cloud.

Invariant: nothing is applied before the cluster has said yes to all of it in a dry run, and somebody has too.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import typer

from crosslogic.cli.client import management
from crosslogic.cli.output import print_table
from crosslogic.compass.plan import Plan
from crosslogic.compass.ranking.model import Recommendation
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.money import PUSD_PER_USD

PATH = "/admin/compass/deployments"
PLATFORMS = ("kubernetes", "nodes")
ASKING_S = 60.0  # the planner of a cloud that was asked nothing yet takes its time
_MOST_SHOWN = 30


class Target(msgspec.Struct, frozen=True):
    """Where, for whom, and under which name."""

    name: str
    org: str
    platform: str
    simulated: bool
    force: bool


class Cloud:
    """The cloud that a plan is made for and applied in."""

    def __init__(self, url: str | None, admin_key: str | None, data_dir: Path) -> None:
        self._api = management(url, admin_key, data_dir)

    def __enter__(self) -> "Cloud":
        return self

    def __exit__(self, *_: object) -> None:
        self._api.__exit__()

    @staticmethod
    def target(made: Plan, name: str | None, *, org: str, platform: str, simulated: bool, force: bool) -> Target:
        """Where nobody says a name, it is called as its use case is."""
        called = name or made.specification.use_case.value.replace("_", "-")
        return Target(called, org, platform, simulated, force)

    def recommend(self, made: Plan, org: str) -> Recommendation:
        """With the cloud's own prices and models, and what outcomes taught the org."""
        body = {"specification": msgspec.to_builtins(made.specification), "org": org}
        found = self._api.post("/admin/compass/recommendations", body, timeout_s=ASKING_S)
        return msgspec.convert(found, Recommendation)

    def deploy(self, found: Recommendation, target: Target, *, yes: bool, quiet: bool) -> dict[str, Any]:
        """Plan, try, ask and apply. Where somebody says no, what was planned stays planned."""
        if target.platform not in PLATFORMS:
            raise InvalidRequest(f"--on {target.platform}: choose {' or '.join(PLATFORMS)}")
        if found.best is None:
            raise InvalidRequest("nothing meets all of this, so there is nothing to deploy")
        if not yes and (quiet or not sys.stdin.isatty()):
            raise InvalidRequest("nobody can be asked here; add --yes to apply without a question")
        planned = self._planned(found, target)
        self._api.post(f"{PATH}/{planned['id']}/deploy", {"force": target.force, "dry_run": True}, timeout_s=ASKING_S)
        if not quiet:
            self._show(planned, found, target)
        if not yes and not typer.confirm("Apply this now?"):
            typer.echo(f"not applied; it stays planned: crosslogic deployments deploy {planned['id']}")
            return planned
        applied: dict[str, Any] = self._api.post(
            f"{PATH}/{planned['id']}/deploy", {"force": target.force}, timeout_s=ASKING_S
        )
        status = self._api.get(f"{PATH}/{planned['id']}/status")
        if not quiet:
            _say(applied, status)
        return {**applied, "status": status}

    def _planned(self, found: Recommendation, target: Target) -> dict[str, Any]:
        """A new deployment, or a further revision of the one that has this name."""
        assert found.best is not None
        body = {
            "specification": msgspec.to_builtins(found.specification),
            "candidate": found.best.candidate.id,
            "surroundings": {"platform": target.platform, "simulator": target.simulated},
        }
        known = list(self._api.rows(PATH, org=target.org, name=target.name))
        if known:
            revised: dict[str, Any] = self._api.post(f"{PATH}/{known[0]['id']}/revisions", body, timeout_s=ASKING_S)
            return revised
        made: dict[str, Any] = self._api.post(
            PATH, {**body, "org": target.org, "name": target.name}, timeout_s=ASKING_S
        )
        return made

    def _show(self, planned: dict[str, Any], found: Recommendation, target: Target) -> None:
        assert found.best is not None
        cost = found.best.cost.per_month_pusd / PUSD_PER_USD
        where = "on nodes with our agent" if target.platform == "nodes" else "in the cluster"
        typer.echo(f"\n{planned['name']}, revision {planned['revision']}, {where}; about {cost:,.0f} USD a month")
        if target.platform == "nodes":
            option = found.best
            typer.echo(f"  {option.sizing.replicas} nodes with {option.candidate.tp} x {option.candidate.gpu} each")
            return
        files = self._api.get(f"{PATH}/{planned['id']}/manifests")
        print_table(("kind", "file"), ((each["kind"], each["path"]) for each in files[:_MOST_SHOWN]), nothing="")
        typer.echo("the cluster takes all of it (dry run)")


def _say(applied: dict[str, Any], status: dict[str, Any]) -> None:
    typer.echo(f"{applied['id']}: {applied['name']} is {applied['state']}, revision {applied['revision']}")
    if status["ready"]:
        typer.echo(f"ready at {status['endpoint'] or 'the gateway'}")
    else:
        typer.echo(f"not ready yet: {status['message'] or 'no pod is ready'}")
    for name, url in status["links"].items():
        typer.echo(f"{name}: {url}")
    typer.echo(f"look again: crosslogic deployments status {applied['id']}")
