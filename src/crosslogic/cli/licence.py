"""`crosslogic licence`: make and check licence files of sites that no network reaches."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from crosslogic.billing.exports import licence as licences
from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_fields, print_json, print_table
from crosslogic.kernel.errors import ConfigurationError, InvalidRequest
from crosslogic.kernel.ids import new_id

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make and check licence files.")


@app.command()
def keys(directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Where to write the two keys.")]) -> None:
    """Make a signing key, and the public key that sites check licences with."""
    private, public = licences.new_keys()
    for name, content, mode in (("licence.key", private, 0o600), ("licence.pub", public, 0o644)):
        path = directory / name
        try:
            path.touch(mode=mode, exist_ok=False)
            path.write_bytes(content)
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be written ({type(error).__name__}); choose another place"
            ) from None
        typer.echo(f"wrote {path}")


@app.command()
def issue(
    licensee: Annotated[str, typer.Argument(metavar="LICENSEE", help="Whom it is for.")],
    until: Annotated[str, typer.Option(metavar="DAY", help="End, such as 2030-01-01.")],
    key: Annotated[Path, typer.Option(help="The signing key.")],
    nodes: Annotated[int | None, typer.Option(min=1, help="Most nodes.")] = None,
    tokens_per_month: Annotated[int | None, typer.Option(min=1, help="Most tokens of a month.")] = None,
) -> None:
    """Print a signed licence file."""
    try:
        expires_at = datetime.fromisoformat(until)
    except ValueError:
        raise InvalidRequest(f"--until {until}: write a day such as 2030-01-01") from None
    if expires_at.tzinfo is None:
        expires_at = expires_at.replace(tzinfo=UTC)
    made = licences.Licence(
        new_id("lic"), licensee, datetime.now(UTC).replace(microsecond=0), expires_at, nodes, tokens_per_month
    )
    typer.echo(licences.sign(made, _read(key)), nl=False)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The licence file.")],
    key: Annotated[Path, typer.Option(help="The public key.")],
    as_json: JsonOption = False,
) -> None:
    """Check a licence file, and show what it allows."""
    licence = licences.read(_read(file).decode("utf-8", "replace"), _read(key))
    row = {
        "id": licence.id,
        "licensee": licence.licensee,
        "issued_at": licence.issued_at.isoformat(),
        "expires_at": licence.expires_at.isoformat(),
        "nodes": licence.nodes,
        "tokens_per_month": licence.tokens_per_month,
        "standing": licence.standing(datetime.now(UTC)),
    }
    if as_json:
        print_json(row)
    else:
        print_fields(row.items())


@app.command()
@with_management
def status(api: Management, as_json: JsonOption = False) -> None:
    """How the running site stands at the bounds of its licence; exit code 1 once they are exceeded."""
    row = api.get("/admin/licence")
    if as_json:
        print_json(row)
    else:
        names = ("name", "stage", "used", "allowed")
        print_table(names, ([each[name] for name in names] for each in row["bounds"]), nothing="")
    if row["stage"] == "exceeded":
        raise typer.Exit(1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})") from None
