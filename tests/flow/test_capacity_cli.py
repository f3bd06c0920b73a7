"""Reserved capacity and resources from the shell, against a running cloud."""

from crosslogic.cli.main import run
from tests.flow.clouds import Command


def test_capacity_is_reserved_shown_changed_and_cancelled(crosslogic: Command) -> None:
    crosslogic("orgs", "create", "buyer")
    asked = ("capacity", "reserve", "m", "50", "--org", "buyer", "--for", "30d")
    assert "only 0 of 50 units are free" in crosslogic(*asked, code=1)  # there are no nodes
    again = ("--force", "--idempotency-key", "order-1")
    assert "50 tokens/s of m until " in crosslogic(*asked, *again)
    made = crosslogic(*asked, *again, "--json")
    (listed,) = crosslogic("capacity", "list", "--org", "buyer", "--json")
    assert (listed["id"], listed["units"], listed["state"]) == (made["id"], 50, "active")
    assert made["id"] in crosslogic("capacity", "list", "--state", "active")
    changed = crosslogic("capacity", "change", made["id"], "--units", "40", "--usd-per-month", "99.5", "--json")
    assert (changed["units"], changed["price_usd_per_month"]) == (40, "99.500000000000")
    assert "99.5" in crosslogic("capacity", "show", made["id"])
    assert crosslogic("capacity", "cancel", made["id"]) == f"{made['id']} is cancelled\n"
    assert crosslogic("capacity", "list", "--org", "buyer", "--state", "active") == "nothing is reserved\n"
    assert "write a duration" in crosslogic("capacity", "reserve", "m", "5", "--for", "soon", code=1)


def test_resources_say_which_setting_they_need(crosslogic: Command) -> None:
    crosslogic("orgs", "create", "sharer")
    for command in (
        ("available", "--org", "sharer"),
        ("reserve", "--org", "sharer", "--concurrency", "1"),
        ("allocate", "--org", "sharer", "--concurrency", "1", "--for", "1h"),
        ("release", "alloc_1"),
    ):
        assert "resources.enable_reservations: true" in crosslogic("resources", *command, code=1)
    assert crosslogic("resources", "list") == "nothing is allocated\n"
    assert run(["resources", "allocate", "--for", "soon"]) == 1
