"""Prices and credits from the shell, against a running cloud."""

import json
from pathlib import Path

from tests.flow.clouds import Command


def test_prices_are_drafted_shown_compared_published_and_retired(crosslogic: Command, tmp_path: Path) -> None:
    file = tmp_path / "spring.json"
    file.write_text(json.dumps({"prices": [{"model": "m-*", "input": "0.05", "output": "0.10"}]}))
    assert "is a draft" in crosslogic("prices", "draft", str(file), "--note", "spring")
    (listed,) = crosslogic("prices", "list", "--status", "draft", "--json")
    version = listed["id"]
    shown = crosslogic("prices", "show", version)
    assert "0.10" in shown
    assert "from nowhere yet" in shown
    period = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-02-01T00:00:00Z")
    assert "0 requests would cost something else" in crosslogic("prices", "compare", version, *period)
    assert f"{version} holds from " in crosslogic("prices", "publish", version, "--from", "2090-01-01T00:00:00Z")
    assert "published already" in crosslogic("prices", "publish", version, "--from", "2091-01-01T00:00:00Z", code=1)
    assert f"{version} holds no more from 2090-01-01" in crosslogic("prices", "retire", version)
    assert "1 USD is 88.125 INR" in crosslogic("prices", "rate", "INR", "88.125")
    file.write_text(json.dumps({"prices": [{"model": "m", "input": "0.0000001"}]}))
    assert "the price 0.0000001 of 'm'" in crosslogic("prices", "draft", str(file), code=1)
    file.write_text("{")
    assert "is no JSON" in crosslogic("prices", "draft", str(file), code=1)
    assert "cannot be read" in crosslogic("prices", "draft", str(tmp_path / "nowhere"), code=1)


def test_credits_are_granted_listed_and_voided(crosslogic: Command) -> None:
    for org in ("giver", "brought"):
        crosslogic("orgs", "create", org)
    asked = ("credits", "grant", "25.50", "--org", "giver", "--class", "paid", "--ref", "order-1")
    made = crosslogic(*asked, "--json")
    assert crosslogic(*asked, "--json") == made
    assert "25.50" in crosslogic("credits", "list", "--org", "giver")
    assert "5.00 USD (referral)" in crosslogic("credits", "refer", "giver", "brought")
    rows = crosslogic("credits", "list", "--org", "giver", "--json")
    assert [row["credit_class"] for row in rows if row["credit_class"] != "signup"] == ["referral", "paid"]
    assert "25.50 USD are taken back" in crosslogic("credits", "void", made["id"])
    assert "no such credit" in crosslogic("credits", "void", "grant_absent", code=1)
