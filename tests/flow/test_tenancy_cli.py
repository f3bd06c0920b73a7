"""Tenants from the shell, against a running cloud: environments, users, plans, operators, keys, the audit log."""

import io
from typing import Any

import pytest

from crosslogic.cli.main import run
from tests.flow.clouds import Command


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


def test_a_leaked_key_is_recognised_without_asking_anybody(
    crosslogic: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_org(crosslogic, "leaky")
    key = new_key(crosslogic, "leaky")["key"]
    monkeypatch.setenv("CROSSLOGIC_DATA_DIR", "/nowhere")  # no cloud to ask
    (row,) = crosslogic("keys", "check", key, "--json")
    assert row == {"prefix": key[:16], "kind": "live", "well_formed": True}
    assert key not in crosslogic("keys", "check", key)
    assert "not a key of ours" in crosslogic("keys", "check", key[:-1] + ("0" if key[-1] != "0" else "1"), code=1)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"export OPENAI_API_KEY={key}\nand sk-other"))
    assert key[:16] in crosslogic("keys", "check")
    monkeypatch.setattr("sys.stdin", io.StringIO("nothing here"))
    assert "no key of ours" in crosslogic("keys", "check", code=1)


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
    chosen = crosslogic("envs", "change", "dev", *org, "--cache", "on", "--cache-ttl", "10m", "--json")["cache"]
    assert chosen == {"use": "on", "sampled": None, "ttl_s": 600.0}
    assert crosslogic("envs", "change", "dev", *org, "--cache", "inherit", "--json")["cache"]["use"] is None
    assert crosslogic("orgs", "change", "housed", "--cache-sampled", "--json")["cache"]["sampled"] is True


def test_ceilings_of_every_kind_are_named_and_replaced_together(crosslogic: Command) -> None:
    new_org(crosslogic, "bounded")
    crosslogic("envs", "create", "dev", "--org", "bounded")
    row = crosslogic(
        *("orgs", "change", "bounded", "--limit", "spend_per_month_usd=25.00", "--limit", "max_output_tokens=500"),
        *("--env-limit", "requests_per_second=5", "--key-limit", "burst_share=0.5", "--at-cap", "suspend", "--json"),
    )
    assert (row["limits"]["spend_per_month_usd"], row["limits"]["max_output_tokens"]) == ("25.00", 500)
    assert (row["env_limits"]["requests_per_second"], row["key_limits"]["burst_share"]) == (5, 0.5)
    assert row["at_cap"] == "suspend"
    assert "spend_per_month_usd=25.00" in crosslogic("orgs", "list")
    watched = crosslogic("envs", "change", "dev", "--org", "bounded", "--limit", "shadow=true", "--json")
    assert watched["limits"]["shadow"] is True
    made = crosslogic(
        "keys", "create", "k", "--org", "bounded", "--env", "dev", "--limit", "spend_per_hour_usd=0.1", "--json"
    )
    assert made["limits"]["spend_per_hour_usd"] == "0.10"
    lifted = crosslogic("orgs", "change", "bounded", "--limit", "max_output_tokens=none", "--json")
    assert (lifted["limits"]["spend_per_month_usd"], lifted["limits"]["max_output_tokens"]) == (None, None)
    plan = crosslogic(
        "plans", "set", "capped", "--limit", "spend_per_day_usd=2", "--env-limit", "concurrency=3", "--json"
    )
    assert (plan["limits"]["spend_per_day_usd"], plan["env_limits"]["concurrency"]) == ("2.00", 3)
    crosslogic("plans", "remove", "capped")
    for wrong in ("requests_per_fortnight=1", "spend_per_month_usd=lots", "requests_per_minute"):
        assert crosslogic("orgs", "change", "bounded", "--limit", wrong, code=1).startswith("crosslogic: ")


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
