"""The planner over the management API, on both databases: conversations, specifications, catalogue, data health."""

import json
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.contract.test_api_admin import client, client_of, error_of, services_on

__all__ = ["client"]  # a fixture

OWN = "/api/v1/compass"
CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
}  # fmt: skip


@pytest_asyncio.fixture
async def acme(client: httpx.AsyncClient, engine: Any) -> Any:
    """As the org acme, beside bolt; the admin client is its `admin`."""
    tokens = {}
    for org in ("acme", "bolt"):
        await client.post("/admin/orgs", json={"name": org})
        await client.post(f"/admin/orgs/{org}/environments", json={"name": "prod"})
        body = {"org": org, "environment": "prod", "name": "boss", "role": "admin"}
        tokens[org] = (await client.post("/admin/keys", json=body)).json()["key"]
    services = services_on(engine)
    async with (
        client_of(services, Authorization=f"Bearer {tokens['acme']}") as own,
        client_of(services, Authorization=f"Bearer {tokens['bolt']}") as other,
    ):
        own.other = other  # type: ignore[attr-defined]
        own.admin = client  # type: ignore[attr-defined]
        yield own


async def test_a_conversation_is_started_gone_on_with_read_and_deleted(acme: Any) -> None:
    started = (await acme.post(f"{OWN}/conversations", json={"message": "a chatbot on L40S"})).json()
    assert [message["role"] for message in started["messages"]] == ["user", "assistant"]
    path = f"{OWN}/conversations/{started['id']}"
    exchange = (await acme.post(f"{path}/messages", json={"message": "1000 users, low latency is critical"})).json()
    assert exchange["extractor"] == "deterministic"
    assert exchange["understanding"]["intent"]["user_count"] == 1000
    assert exchange["understanding"]["questions"] == []
    fields = exchange["specification"]["fields"]
    assert (fields["priority"], fields["wishes.preferred_gpus"], fields["slo.ttft_p95_ms"]) == (
        "latency",
        ["l40s"],
        150,
    )
    assert "1,000 users, 20% of them active" in exchange["specification"]["basis"][0]
    listed = (await acme.get(f"{OWN}/conversations")).json()
    assert [(row["id"], row["turns"]) for row in listed["data"]] == [(started["id"], 4)]
    assert (await acme.delete(path)).status_code == 204
    assert error_of(await acme.get(path))[0] == 404
    entries = (await acme.admin.get("/admin/audit", params={"action": "conversation"})).json()["data"]
    assert {entry["action"] for entry in entries} == {
        "conversation.create",
        "conversation.say",
        "conversation.delete",
    }
    assert "L40S" not in json.dumps(entries)  # what was said is the org's own


async def test_a_message_is_answered_in_events_where_they_are_asked_for(acme: Any) -> None:
    started = (await acme.post(f"{OWN}/conversations", json={})).json()
    answer = await acme.post(
        f"{OWN}/conversations/{started['id']}/messages",
        json={"message": "a chatbot"},
        headers={"Accept": "text/event-stream"},
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    assert [lines[0] for lines in events][:3] == ["event: understood", "event: specification", "event: reply"]
    assert events[-1][0] == "event: done"
    payloads = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert payloads[0]["questions"][0]["field"] == "user_count"
    assert payloads[-1]["conversation_id"] == started["id"]


async def test_a_specification_is_made_edited_listed_and_its_history_read(acme: Any) -> None:
    made = await acme.post(f"{OWN}/specifications", json={"description": "RAG for 200 users", "name": "wiki"})
    assert made.status_code == 201
    spec = made.json()["specification"]
    path = f"{OWN}/specifications/{spec['id']}"
    changed = (await acme.patch(path, json={"changes": {"slo.e2e_p95_ms": 500}, "revision": 1})).json()
    assert changed["revision"] == 2
    assert [(each["field"], each["weight"]) for each in changed["findings"]] == [("slo.e2e_p95_ms", "error")]
    assert error_of(await acme.patch(path, json={"changes": {"users": 5}, "revision": 1}))[0] == 409
    assert error_of(await acme.patch(path, json={"changes": {"slo.nothing": 5}}))[0::3] == (400, "slo.nothing")
    history = (await acme.get(f"{path}/revisions", params={"limit": 1})).json()
    assert (history["data"][0]["reason"], history["next_cursor"]) == ("created", "1")
    assert [row["name"] for row in (await acme.get(f"{OWN}/specifications")).json()["data"]] == ["wiki"]
    assert (await acme.delete(path)).status_code == 204
    assert error_of(await acme.get(f"{path}/revisions"))[0] == 404


async def test_what_is_another_orgs_is_as_what_does_not_exist(acme: Any) -> None:
    started = (await acme.post(f"{OWN}/conversations", json={"message": "a chatbot"})).json()
    for own, unknown in (
        (f"conversations/{started['id']}", "conversations/conv_1"),
        (f"specifications/{started['specification_id']}", "specifications/spec_1"),
        (f"specifications/{started['specification_id']}/revisions", "specifications/spec_1/revisions"),
    ):
        foreign, absent = [await acme.other.get(f"{OWN}/{path}") for path in (own, unknown)]
        assert (foreign.status_code, foreign.json()) == (absent.status_code, absent.json())
        assert foreign.status_code == 404
    assert (await acme.other.get(f"{OWN}/conversations")).json()["data"] == []


@pytest.mark.parametrize(
    "message",
    ["", "-5 users", "10^12 QPS please", "chatbot on FOOBAR9000 GPUs", "x" * 100_000, "\u0000", "'; DROP TABLE orgs"],
)
async def test_nonsense_has_a_clear_answer(acme: Any, message: str) -> None:
    started = (await acme.post(f"{OWN}/conversations", json={})).json()
    answer = await acme.post(f"{OWN}/conversations/{started['id']}/messages", json={"message": message})
    assert answer.status_code in (200, 400)
    assert answer.json().get("reply") or answer.json()["error"]["message"]


async def test_prices_are_imported_listed_with_doubts_and_taken_back(acme: Any) -> None:
    admin = acme.admin
    rows = "cloud,instance_type,gpu,gpu_count,region,zone,on_demand_usd_h,spot_usd_h\n"
    rows += "azure,Standard_ND96isr_H100_v5,H100,12,eastus,,98.32,98.32\nazure,x,abacus,1,eastus,,1,\n"
    body = {"format": "skypilot", "content": rows, "as_of": "2026-01-01"}
    made = await admin.post("/admin/catalog/prices", json=body)
    assert made.status_code == 201
    assert made.json()["imported"] == 2
    assert "'abacus' is not in the catalogue" in made.json()["refused"][0]
    listed = (await acme.get("/api/v1/catalog/prices", params={"cloud": "azure"})).json()["data"]
    assert [(row["market"], row["usd_per_hour"]) for row in listed] == [
        ("on_demand", "98.320000000000"),
        ("spot", "98.320000000000"),
    ]
    assert "no machine has so many of this GPU" in listed[0]["doubts"]
    assert (await admin.post("/admin/catalog/prices", json=body)).json()["imported"] == 2  # harmless to repeat
    assert (await admin.delete("/admin/catalog/prices/azure")).status_code == 204
    again = (await acme.get("/api/v1/catalog/prices", params={"cloud": "azure", "limit": 500})).json()["data"]
    assert len(again) > 20
    assert error_of(await admin.post("/admin/catalog/prices", json={"format": "aws", "content": "{}"}))[0] == 400
    assert error_of(await admin.get("/admin/catalog/prices", params={"gpu": "abacus"}))[0] == 400


async def test_a_model_is_imported_from_its_config_and_taken_back(acme: Any) -> None:
    admin = acme.admin
    made = await admin.post("/admin/catalog/models", json={"id": "acme/superlm-8b", "config": CONFIG})
    assert made.status_code == 201
    assert (made.json()["parameters"], made.json()["kv_bytes_per_token"]) == (8_029_995_008, 131_072)
    listed = (await acme.get("/api/v1/catalog/models", params={"limit": 500})).json()["data"]
    assert "acme/superlm-8b" in {row["id"] for row in listed}
    assert (await admin.delete("/admin/catalog/models/acme/superlm-8b")).status_code == 204
    assert error_of(await admin.delete("/admin/catalog/models/acme/superlm-8b"))[0] == 404
    refused = await admin.post("/admin/catalog/models", json={"id": "acme/x", "config": {"hidden_size": 1}})
    assert error_of(refused)[0::3] == (400, "num_attention_heads")


async def test_data_health_tells_what_to_doubt(acme: Any) -> None:
    health = (await acme.get("/api/v1/data/health")).json()
    assert health["healthy"] is False
    kinds = {issue["kind"]: issue for issue in health["issues"]}
    assert kinds["price_far_below_elsewhere"]["count"] == 24
    assert health == (await acme.admin.get("/admin/data/health")).json()
    gpus = (await acme.get("/api/v1/catalog/gpus", params={"limit": 5})).json()
    assert len(gpus["data"]) == 5
    assert gpus["next_cursor"] == gpus["data"][-1]["id"]


async def test_each_turn_and_edit_leads_to_a_recommendation_beside_the_one_before(acme: Any) -> None:
    started = (await acme.post(f"{OWN}/conversations", json={})).json()
    path = f"{OWN}/conversations/{started['id']}/messages"
    said = "a chatbot for 500 users with Llama-3.1-8B-Instruct on H100"
    first = (await acme.post(path, json={"message": said, "recommend": True})).json()["recommended"]
    assert first["revision"] == 1
    assert first["best"].startswith("meta-llama/Llama-3.1-8B-Instruct@")
    assert first["differences"] == []
    plain = (await acme.post(path, json={"message": "it is for people at work"})).json()
    assert plain["recommended"] is None
    second = (await acme.post(path, json={"message": "200000 users, not 500", "recommend": True})).json()["recommended"]
    lines = {line["name"]: line for line in second["differences"]}
    assert lines["cost a month"]["difference"].startswith("+$")
    assert second["usd_per_month"] > first["usd_per_month"]
    specification = plain["specification"]["id"]
    at = f"{OWN}/specifications/{specification}"
    edited = await acme.patch(at, json={"changes": {"wishes.preferred_gpus": ["l40s"], "slo.itl_p95_ms": 60}})
    assert edited.status_code == 200, edited.text
    third = (await acme.post(f"{at}/recommendations")).json()
    assert third["revision"] == edited.json()["revision"]
    assert "l40s" in third["best"]
    kept = (await acme.get(f"{at}/recommendations")).json()["data"]
    assert [each["id"] for each in kept] == [third["id"], second["id"], first["id"]]
    assert kept[0]["differences"] == third["differences"]
    assert kept[0]["recommendation"]["options"]
    page = (await acme.get(f"{at}/recommendations", params={"limit": 1})).json()
    assert [each["id"] for each in page["data"]] == [third["id"]]
    assert page["data"][0]["differences"] == third["differences"]
    only = (await acme.get(f"{at}/recommendations", params={"revision": first["revision"]})).json()["data"]
    assert [each["id"] for each in only] == [first["id"]]
    assert error_of(await acme.other.get(f"{at}/recommendations"))[0] == 404
    assert error_of(await acme.other.post(f"{at}/recommendations"))[0] == 404
    await acme.patch(at, json={"changes": {"slo.e2e_p95_ms": 10}})
    assert "cannot end within" in (await acme.post(f"{at}/recommendations")).json()["error"]["message"]
    assert (await acme.delete(at)).status_code == 204  # with what was recommended


async def test_a_recommendation_comes_as_an_event_after_the_reply(acme: Any) -> None:
    started = (await acme.post(f"{OWN}/conversations", json={})).json()
    body = {"message": "a chatbot for 500 users with Llama-3.1-8B-Instruct on H100", "recommend": True}
    answer = await acme.post(
        f"{OWN}/conversations/{started['id']}/messages", json=body, headers={"accept": "text/event-stream"}
    )
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    names = [event[0].removeprefix("event: ") for event in events]
    assert names[:2] == ["understood", "specification"]
    assert names[-2:] == ["recommended", "done"]
    assert set(names[2:-2]) == {"reply"}
    assert json.loads(events[-2][1].removeprefix("data: "))["best"]


async def test_lists_are_filtered_by_words_and_reasons(acme: Any) -> None:
    for said in ("a chatbot for our shop", "code completion in an editor"):
        await acme.post(f"{OWN}/conversations", json={"message": said})
    found = (await acme.get(f"{OWN}/conversations", params={"containing": "CODE"})).json()["data"]
    assert [row["title"] for row in found] == ["code completion in an editor"]
    assert (await acme.get(f"{OWN}/conversations", params={"containing": "%"})).json()["data"] == []
    row = (await acme.get(f"{OWN}/specifications", params={"containing": "completion"})).json()["data"][0]
    await acme.patch(f"{OWN}/specifications/{row['id']}", json={"changes": {"priority": "cost"}})
    revisions = f"{OWN}/specifications/{row['id']}/revisions"
    assert len((await acme.get(revisions)).json()["data"]) == 2
    assert len((await acme.get(revisions, params={"reason": "edited"})).json()["data"]) == 1
    gpus = (await acme.get("/api/v1/catalog/gpus", params={"manufacturer": "amd"})).json()["data"]
    assert {gpu["manufacturer"] for gpu in gpus} == {"AMD"}
    large = (await acme.get("/api/v1/catalog/gpus", params={"least_memory_gb": 100})).json()["data"]
    assert large
    assert all(gpu["memory_gb"] >= 100 for gpu in large)


async def test_a_kept_specification_is_asked_what_if_by_its_id_as_it_was_edited(acme: Any) -> None:
    made = (await acme.post(f"{OWN}/specifications", json={"description": "a chatbot for 200 users"})).json()
    kept = {"specification_id": made["specification"]["id"]}
    await acme.patch(f"{OWN}/specifications/{kept['specification_id']}", json={"changes": {"traffic.peak_qps": 9}})
    compared = await acme.post(f"{OWN}/comparisons", json={**kept, "change": {"traffic_times": 2}})
    assert compared.status_code == 200, compared.text
    assert any("for 9 requests/s" in reason for reason in compared.json()["before"]["options"][0]["reasons"])
    assert (await acme.post(f"{OWN}/recommendations", json=kept)).json()["options"]
    assert (await acme.post(f"{OWN}/risks", json={**kept, "draws": 20})).json()["sensitivities"]
    scenario = await acme.post(f"{OWN}/scenarios", json={**kept, "name": "as it is"})
    assert scenario.json()["specification"]["traffic"]["peak_qps"] == 9
    for body in (kept, {}, {**kept, "specification": {}}):
        client = acme.other if body is kept else acme
        assert error_of(await client.post(f"{OWN}/recommendations", json=body))[0] == (404 if body is kept else 400)
