"""What `crosslogic plan` writes beside what it prints: Kubernetes files, and a report for people."""

from pathlib import Path

import typer

from crosslogic.compass.manifests.model import Surroundings
from crosslogic.compass.manifests.planned import plan_of
from crosslogic.compass.manifests.render import plain_files, render
from crosslogic.compass.ranking.model import Recommendation
from crosslogic.compass.ranking.planner import packaged_planner
from crosslogic.compass.report import report
from crosslogic.kernel.errors import ConfigurationError, InvalidRequest

_NAME, _TENANT = "planned", "default"


def write_manifests(found: Recommendation, directory: Path, *, simulator: bool) -> None:
    """The best option's files. Raises InvalidRequest where there is none."""
    if found.best is None:
        raise InvalidRequest("nothing meets all of this, so there is nothing to deploy")
    plan = plan_of(found.best, found.specification, name=_NAME, org_id=_TENANT, tenant=_TENANT)
    around = Surroundings(simulator=simulator)
    for each in (*render(plan, around), *plain_files(plan, around)):
        _write(directory / each.path, each.text)
    typer.echo(f"wrote manifests to {directory}", err=True)


def write_report(found: Recommendation, path: Path) -> None:
    _write(path, report(found, packaged_planner()))
    typer.echo(f"wrote {path}", err=True)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error.strerror})") from None
