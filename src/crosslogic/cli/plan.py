"""`crosslogic plan`: from a sentence to a recommendation, in this terminal, with nothing running."""

import shutil
import sys
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml

from crosslogic.catalog.gpus import find_gpu
from crosslogic.catalog.price_lists.rows import price_list
from crosslogic.catalog.prices import GpuPrice
from crosslogic.cli.flags import DATA_DIR, AdminKeyOption, DataDirOption, JsonOption, UrlOption
from crosslogic.cli.output import print_json, print_note, print_table
from crosslogic.cli.plan_files import write_manifests, write_report
from crosslogic.cli.plan_plot import pareto_plot
from crosslogic.cli.price_files import price_rows
from crosslogic.compass.conversation.reply import Understanding, understand
from crosslogic.compass.intent.deterministic import extract
from crosslogic.compass.intent.ports import Role, Turn
from crosslogic.compass.plan import Plan, plan_turns
from crosslogic.compass.ranking.model import Option, Recommendation
from crosslogic.compass.specification.edit import fields_of
from crosslogic.compass.specification.validate import Weight
from crosslogic.compass.traffic.observed import ObservedTraffic, observe
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import ConfigurationError, InvalidRequest
from crosslogic.kernel.money import PUSD_PER_USD

_MOST_ASKED = 4
_SHOWN_OPTIONS, _SHOWN_REJECTIONS = 8, 5


def plan(
    description: Annotated[
        str, typer.Argument(help='What is wanted, such as "a chatbot for 1000 users on L40S".')
    ] = "",
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Field of the specification; repeatable.")
    ] = None,
    traffic: Annotated[
        Path | None,
        typer.Option("--traffic", help="Log of requests, CSV or JSON lines: time, prompt and output tokens."),
    ] = None,
    prices: Annotated[
        Path | None, typer.Option("--prices", help="Price list in SkyPilot's columns, with `cloud`.")
    ] = None,
    ask: Annotated[bool, typer.Option("--ask/--no-ask", help="Ask what would change the plan, on a terminal.")] = True,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw cost against latency.")] = True,
    specification_only: Annotated[bool, typer.Option("--specification", help="Stop before recommending.")] = False,
    manifests: Annotated[
        Path | None, typer.Option("--manifests", metavar="DIRECTORY", help="Write the best option's Kubernetes files.")
    ] = None,
    simulator: Annotated[
        bool, typer.Option("--simulated", "--simulator", help="Manifests with a simulated engine, no GPU.")
    ] = False,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML report of the candidates.")
    ] = None,
    deploy: Annotated[
        bool, typer.Option("--deploy", help="Deploy the best option: dry run, question, apply. Needs a cloud.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="Of the deployment.  [default: the use case]")] = None,
    org: Annotated[str, typer.Option("--org", help="For this organisation, by id or name.")] = "default",
    platform: Annotated[str, typer.Option("--on", help="kubernetes, or nodes: those with our agent.")] = "kubernetes",
    yes: Annotated[bool, typer.Option("--yes", help="Apply without a question.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Take over fields that others manage.")] = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML for programs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Plan a deployment: which model on which GPUs, how many, and what it costs."""
    if specification_only and (manifests is not None or report_file is not None or deploy):
        raise InvalidRequest("--manifests, --report and --deploy need a recommendation; leave --specification out")
    if deploy and prices is not None:
        raise InvalidRequest(
            "--deploy plans with the cloud's prices; import yours with crosslogic catalog prices import"
        )
    for_programs = as_json or as_yaml
    turns = [Turn(Role.USER, description or _asked_for(for_programs))]
    if ask and not for_programs and sys.stdin.isatty():
        turns = _clarified(turns)
    changes = _changes(change or [])
    measured = None if traffic is None else _observed(traffic).profile(traffic.name)
    made = plan_turns(
        turns,
        changes=changes,
        traffic=measured,
        prices=_prices(prices),
        recommended=not (specification_only or deploy),
    )
    contradictory = any(finding.weight is Weight.ERROR for finding in made.findings)
    with ExitStack() as stack:
        cloud = None
        if deploy and not contradictory:
            # its HTTP client is not for plans that stay here
            cloud = stack.enter_context(import_module("crosslogic.cli.plan_deploy").Cloud(url, admin_key, data_dir))
            made = msgspec.structs.replace(made, recommendation=cloud.recommend(made, org))
        if not for_programs:
            _show(made, plot=plot and sys.stdout.isatty())
        if made.recommendation is not None and manifests is not None:
            write_manifests(made.recommendation, manifests, simulator=simulator)
        if made.recommendation is not None and report_file is not None:
            write_report(made.recommendation, report_file)
        deployment = None
        if cloud is not None and made.recommendation is not None:
            target = cloud.target(made, name, org=org, platform=platform, simulated=simulator, force=force)
            deployment = cloud.deploy(made.recommendation, target, yes=yes, quiet=for_programs)
    if for_programs:
        _print(made, deployment, as_json)
    if contradictory:
        raise typer.Exit(1)


def _print(made: Plan, deployment: dict[str, Any] | None, as_json: bool) -> None:
    whole = msgspec.to_builtins(made, str_keys=True)
    if deployment is not None:
        whole["deployment"] = deployment
    if as_json:
        print_json(whole)
    else:
        typer.echo(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), nl=False)


def _asked_for(for_programs: bool) -> str:
    """Raises InvalidRequest where nobody can be asked."""
    if for_programs or not sys.stdin.isatty():
        raise InvalidRequest('say what is wanted, such as crosslogic plan "a chatbot for 1000 users"')
    return str(typer.prompt("What is the model to do, for how many people, and what matters most"))


def _clarified(turns: list[Turn]) -> list[Turn]:
    """The conversation with questions and answers; an empty answer is "I don't know"."""
    for _ in range(_MOST_ASKED):
        open_questions = understand(extract(turns)).questions
        if not open_questions:
            break
        question = open_questions[0]
        typer.echo(f"{question.text} ({question.why})")
        if question.choices:
            typer.echo(f"  {', '.join(question.choices)}")
        answer = typer.prompt("  ", default="I don't know", show_default=False, prompt_suffix="")
        turns = [*turns, Turn(Role.ASSISTANT, question.text, question.field), Turn(Role.USER, str(answer))]
    return turns


def _changes(said: list[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for one in said:
        field, found, value = one.partition("=")
        if not found or not field:
            raise InvalidRequest(f"--set {one}: write field=value, such as slo.ttft_p95_ms=200")
        try:
            changes[field] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InvalidRequest(f"--set {one}: the value cannot be read") from None
    return changes


def _observed(path: Path) -> ObservedTraffic:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return observe(lines)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})") from None


def _prices(path: Path | None) -> tuple[GpuPrice, ...] | None:
    if path is None:
        return None
    found = price_list(price_rows(path, "skypilot", None, None), SystemClock().now().date())
    return found.prices


def _show(made: Plan, *, plot: bool) -> None:
    _show_understanding(made.understanding)
    _show_specification(made)
    for finding in made.findings:
        print_note(f"{finding.weight.value}: {finding.sentence}")
    for question in made.understanding.questions:
        typer.echo(f"It would help to know: {question.text} ({question.why})")
    if made.recommendation is not None:
        _show_recommendation(made.recommendation, plot=plot)


def _show_understanding(understanding: Understanding) -> None:
    for note in understanding.notes:
        print_note(f"note: {note}")


def _show_specification(made: Plan) -> None:
    fields = fields_of(made.specification)
    shown = {name: value for name, value in fields.items() if value not in (None, [], (), "") and name != "description"}
    print_table(("field", "value"), ((name, _text(value)) for name, value in shown.items()), nothing="")
    for sentence in made.specification.traffic.basis:
        typer.echo(f"  {sentence}")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value < 10_000 else f"{value:,.0f}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _show_recommendation(found: Recommendation, *, plot: bool) -> None:
    typer.echo("")
    print_table(
        ("", "model", "GPUs", "replicas", "USD/month", "where", "TTFT p95", "ITL p95", "E2E p95", "likely", "evidence"),
        (_row(place, option) for place, option in enumerate(found.options[:_SHOWN_OPTIONS], 1)),
        nothing="nothing meets all of this",
    )
    best = found.best
    if best is not None:
        for reason in (*best.reasons, *best.caveats):
            typer.echo(f"  {reason}")
    for advice in found.advice:
        typer.echo(advice)
    for rejection in found.rejections[:_SHOWN_REJECTIONS]:
        gpu = _gpu(rejection.candidate.gpu)
        typer.echo(f"rejected: {rejection.candidate.model} on {rejection.candidate.tp}x {gpu}: {rejection.reason}")
    drawn = pareto_plot(found.options, shutil.get_terminal_size().columns) if plot else ""
    if drawn:
        typer.echo(drawn)


def _row(place: int, option: Option) -> tuple[Any, ...]:
    candidate, cost, forecast = option.candidate, option.cost, option.forecast
    where = " ".join(filter(None, (cost.cloud, cost.region))) or "-"
    return (
        f"{place}{'*' if option.pareto else ''}",
        f"{candidate.model} {candidate.precision}",
        f"{cost.gpus}x {_gpu(candidate.gpu)}" + (f" (TP {candidate.tp})" if candidate.tp > 1 else ""),
        option.sizing.replicas,
        f"{cost.per_month_pusd / PUSD_PER_USD:,.0f}" + (" stale" if cost.stale else ""),
        where,
        f"{forecast.ttft_p95.value:.0f} ms",
        f"{forecast.itl_p95.value:.1f} ms",
        f"{forecast.e2e_p95.value / 1000:.1f} s",
        f"{forecast.likely:.0%}",
        forecast.itl_p95.evidence.value,
    )


def _gpu(gpu_id: str) -> str:
    known = find_gpu(gpu_id)
    return known.name if known else gpu_id
