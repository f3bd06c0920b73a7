"""The admin commands against a running cloud, as a person types them."""

import pytest

from tests.flow.clouds import Command


def test_an_organisation_gets_environments_and_a_key_that_is_shown_once(crosslogic: Command) -> None:
    org = crosslogic("orgs", "create", "acme", "--plan", "pro", "--concurrency", "5", "--json")
    assert [env["name"] for env in org["environments"]] == ["dev", "staging", "prod"]
    assert org["limits"]["concurrency"] == 5
    token = crosslogic("keys", "create", "ci", "--org", "acme", "--env", "prod", "--expires", "90d").strip()
    assert token.startswith("clsk_live_")
    listed = crosslogic("keys", "list", "--org", "acme")
    assert token not in listed
    assert token[:16] in listed
    (row,) = crosslogic("keys", "list", "--org", "acme", "--json")
    assert crosslogic("keys", "revoke", row["id"]) == f"{row['id']} is revoked\n"
    assert crosslogic("keys", "list", "--org", "acme", "--status", "active", "--json") == []
    assert "acme" in crosslogic("orgs", "list")


def test_what_the_api_refuses_is_one_sentence(crosslogic: Command) -> None:
    crosslogic("orgs", "create", "twice")
    assert crosslogic("orgs", "create", "twice", code=1).startswith("crosslogic: ")
    assert crosslogic("usage", "nobody", code=1).startswith("crosslogic: ")
    assert crosslogic("keys", "create", "x", "--role", "king", code=1).startswith("crosslogic: role: ")
    assert "admin key is not valid" in crosslogic("orgs", "list", "--admin-key", "wrong", code=1)


def test_a_node_is_registered_listed_and_drained(crosslogic: Command) -> None:
    assert crosslogic("nodes", "register", "http://127.0.0.1:9", "--model", "m", "--id", "n9", "--engine", "vllm")
    (row,) = crosslogic("nodes", "list", "--json")
    assert (row["node_id"], row["backend"], row["model_list"]) == ("n9", "vllm", ["m"])
    assert crosslogic("nodes", "drain", "n9") == "n9 is draining\n"
    assert "n9" in crosslogic("nodes", "list", "--status", "draining")


def test_usage_of_an_organisation_that_used_nothing(crosslogic: Command) -> None:
    totals = crosslogic("usage", "default", "--group-by", "model,day", "--json")["totals"]
    assert totals["requests"] == 0
    assert crosslogic("usage", "default", "--group-by", "model") == "nothing was used\n"


def test_lists_are_read_to_their_end(crosslogic: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosslogic.cli.client.PAGE_ROWS", 2)
    names = {f"page-{number}" for number in range(5)}
    for name in names:
        crosslogic("orgs", "create", name, "--env", "dev")
    assert names <= {row["name"] for row in crosslogic("orgs", "list", "--json")}
