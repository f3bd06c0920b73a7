"""Tenants from the shell, against a running cloud: environments, users, plans, operators, keys, the audit log."""

from typing import Any

import pytest

from crosslogic.cli.main import run
from tests.flow.test_cli_admin import Command, crosslogic, data_dir

__all__ = ["crosslogic", "data_dir"]  # fixtures


def new_org(crosslogic: Command, name: str) -> None:
    crosslogic("orgs", "create", name, "--env", "prod")


def new_key(crosslogic: Command, org: str, *options: str) -> dict[str, Any]:
    made: dict[str, Any] = crosslogic("keys", "create", "ci", "--org", org, "--env", "prod", "--json", *options)
    return made


def test_a_key_is_scoped_rotated_suspended_and_taken_up(crosslogic: Command) -> None:
    new_org(crosslogic, "keyed")
    made = new_key(crosslogic, "keyed", "--model", "m", "--endpoint", "embeddings", "--ip", "10.0.0.1/8")
    assert made["scoping"] == {"models": ["m"], "endpoints": ["embeddings"], "regions": [], "networks": ["10.0.0.0/8"]}
    assert crosslogic("keys", "suspend", made["id"]) == f"{made['id']} is suspended\n"
    assert crosslogic("keys", "activate", made["id"]) == f"{made['id']} is active\n"
    new = crosslogic("keys", "rotate", made["id"], "--grace", "1h").strip()
    assert new.startswith("clsk_live_")
    assert new != made["key"]
    again = crosslogic("keys", "rotate", made["id"], "--grace", "1h", "--json")
    assert (again["key"], again["prefix"]) == (None, new[:16])
    assert "clsk" not in crosslogic("keys", "rotate", made["id"], "--grace", "1h")
    assert crosslogic("keys", "rotate", made["id"], "--grace", "soon", code=1).startswith("crosslogic: --grace soon")


def test_an_organisation_is_changed_suspended_and_taken_up(crosslogic: Command) -> None:
    new_org(crosslogic, "changing")
    row = crosslogic("orgs", "change", "changing", "--plan", "pro", "--region", "eu", "--no-billing", "--json")
    assert (row["billing_plan"], row["region_preferences"], row["billing_enabled"]) == ("pro", ["eu"], False)
    assert crosslogic("orgs", "suspend", "changing") == "changing is suspended\n"
    assert "changing" in crosslogic("orgs", "list", "--status", "suspended")
    assert crosslogic("orgs", "activate", "changing") == "changing is active\n"
    assert "there is no plan" in crosslogic("orgs", "change", "changing", "--plan", "plutinum", code=1)


def test_environments(crosslogic: Command) -> None:
    new_org(crosslogic, "housed")
    org = ("--org", "housed")
    row = crosslogic("envs", "create", "dev", *org, "--region", "eu", "--concurrency", "3", "--json")
    assert (row["region"], row["limits"]["concurrency"]) == ("eu", 3)
    assert crosslogic("envs", "change", "dev", *org, "--region", "us", "--json")["region"] == "us"
    assert crosslogic("envs", "suspend", "dev", *org) == "dev is suspended\n"
    assert [env["name"] for env in crosslogic("envs", "list", *org, "--status", "suspended", "--json")] == ["dev"]
    assert crosslogic("envs", "activate", "dev", *org) == "dev is active\n"
    assert "us" in crosslogic("envs", "list", *org)


def test_users(crosslogic: Command) -> None:
    new_org(crosslogic, "peopled")
    org = ("--org", "peopled")
    assert "ann@x.example, admin" in crosslogic(
        "users", "create", "Ann@x.example", "--name", "Ann", "--role", "admin", *org
    )
    changed = crosslogic("users", "change", "ann@x.example", "--status", "suspended", "--role", "developer", *org)
    assert changed == "ann@x.example is suspended, developer\n"
    assert "ann@x.example" in crosslogic("users", "list", *org, "--status", "suspended")
    assert crosslogic("users", "remove", "ann@x.example", *org) == "ann@x.example is removed\n"
    assert crosslogic("users", "create", "nobody", "--name", "x", *org, code=1).startswith("crosslogic: ")


def test_plans(crosslogic: Command) -> None:
    assert "499" in crosslogic("plans", "list")
    crosslogic("plans", "set", "gold", "--usd-per-month", "12.5", "--concurrency", "4", "--feature", "api_access")
    row = crosslogic("plans", "set", "gold", "--priority", "7", "--requests-per-minute", "90", "--json")
    assert (row["price_usd_per_month"], row["priority"]) == ("12.500000000000", 7)
    assert (row["limits"]["concurrency"], row["limits"]["requests_per_minute"]) == (4, 90)
    assert [plan["id"] for plan in crosslogic("plans", "list", "--source", "database", "--json")] == ["gold"]
    assert crosslogic("plans", "remove", "gold") == "gold is no longer set here\n"


def test_an_operator_acts_under_a_name_and_the_log_is_as_it_was_written(
    crosslogic: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    eve = crosslogic("operators", "create", "eve", "--json")
    crosslogic("orgs", "create", "by-eve", "--env", "prod", "--admin-key", eve["key"])
    entries = crosslogic("audit", "list", "--actor", eve["id"], "--json")
    assert [entry["action"] for entry in entries] == ["environment.create", "org.create"]
    assert "org.create" in crosslogic("audit", "list", "--org", "by-eve", "--action", "org")
    assert eve["key"] not in str(crosslogic("audit", "list", "--json", "--limit", "1000"))
    said = crosslogic("audit", "verify")
    assert "as they were written" in said
    head = said.split()[-1]
    crosslogic("operators", "revoke", eve["id"])
    assert "revoked" in crosslogic("operators", "list")
    assert crosslogic("audit", "verify", "--head", head, "--json")["head_found"] is True
    assert "no entry has the hash" in crosslogic("audit", "verify", "--head", "00", code=1)
    assert run(["orgs", "list", "--admin-key", eve["key"]]) == 1
    assert "not valid" in capsys.readouterr().err
