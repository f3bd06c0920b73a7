"""`crosslogic cluster`: which processes run, which of them leads, and how the nodes are."""

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_table

app = typer.Typer(add_completion=False)

_COLUMNS = ("id", "role", "leads", "address", "version", "age_s", "silent_s")


@app.command()
@with_management
def cluster(
    api: Management,
    as_json: JsonOption = False,
) -> None:
    """Show the control processes and gateways that run, which control process leads, and what the nodes have."""
    found = api.get("/admin/cluster")
    if as_json:
        print_json(found)
        return
    rows = ([process[column] for column in _COLUMNS] for process in found["processes"])
    print_table(_COLUMNS, rows, nothing="no process has said that it runs")
    nodes = found["nodes"]
    print_table(list(nodes), [list(nodes.values())], nothing="")
