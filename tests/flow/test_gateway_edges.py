"""What passes the gateway's edge, and what it does to it: bytes, usage chunks, addresses, refusals."""

import json
import re

import openai
import pytest

from tests.flow import wire
from tests.flow.clouds import CHAT, LLAMA, QWEN, EmbeddedCloud, chat
from tests.flow.processes import in_time
from tests.flow.scripted import EVENTS, JSON, ScriptedNodes, Turn, delta


@pytest.fixture(autouse=True)
def _well_behaved(scripted: ScriptedNodes) -> None:
    scripted.forget()


def _comparable(body: bytes) -> bytes:
    """A stream without what differs between any two answers of a node."""
    return re.sub(rb'"created":\d+', b"", re.sub(rb'"id":"chatcmpl-[^"]+"', b"", body))


class TestStreams:
    def test_usage_chunk_is_there_when_asked_for(self, cloud: EmbeddedCloud) -> None:
        reply = cloud.ask(chat(max_tokens=5, stream=True, stream_options={"include_usage": True}))
        assert reply.done
        assert reply.chunks[-1]["choices"] == []
        assert reply.chunks[-1]["usage"]["completion_tokens"] == 5

    @pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}])
    def test_usage_chunk_is_removed_when_not_asked_for_and_still_billed(
        self, cloud: EmbeddedCloud, options: dict[str, object]
    ) -> None:
        reply = cloud.ask(chat(max_tokens=5, stream=True, **options))
        assert reply.done
        assert b"usage" not in reply.body
        row = cloud.row(reply.headers["x-request-id"])
        assert (row["completion_tokens"], row["evidence"], row["outcome"]) == (5, "engine", "completed")

    @pytest.mark.parametrize(
        "options",
        [
            {"stream_options": {"include_usage": True}},
            {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
            {"logprobs": True, "top_logprobs": 3, "stream_options": {"include_usage": True}},
            {"n": 3, "stream_options": {"include_usage": True}},
        ],
    )
    def test_bytes_are_those_of_the_node(self, cloud: EmbeddedCloud, options: dict[str, object]) -> None:
        body = chat("the very same bytes", max_tokens=12, stream=True, seed=7, **options)
        through = cloud.ask(body)
        directly = [wire.ask(node["endpoint_url"], CHAT, body) for node in cloud.nodes(LLAMA)]
        assert through.done
        # The cached tokens of the usage differ with what a node has seen before.
        assert re.sub(rb'"cached_tokens":\d+', b"", _comparable(through.body)) in [
            re.sub(rb'"cached_tokens":\d+', b"", _comparable(reply.body)) for reply in directly
        ]

    def test_odd_but_legal_events_pass_untouched(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        pieces = [
            b": a comment\n\n",
            b"data: " + json.dumps(delta("ünïcode ☃")).encode() + b"\r\n\r\n",
            b'id: 7\ndata: {"choices":[{"index":0,"delta":{"content":"x"}}],"unknown":{"deep":[1,2]}}\n\n',
            b"data: " + json.dumps(delta(None, "stop")).encode() + b"\n\n",
        ]

        async def odd(turn: Turn) -> None:
            turn.exchange.start(200, EVENTS)
            for piece in pieces:
                for half in (piece[:9], piece[9:]):
                    turn.exchange.write(half)
            turn.exchange.end(b"data: [DONE]\n\n")

        scripted.script = odd
        reply = tuned.ask(chat(model="scripted", stream=True))
        assert reply.body == b"".join(pieces) + b"data: [DONE]\n\n"

    def test_an_event_after_an_error_in_the_same_packet_does_not_wait_for_more(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes
    ) -> None:
        """The engine failed and says so, but keeps its connection open: the caller need not wait for the timeout."""

        async def fails_and_stays(turn: Turn) -> None:
            turn.exchange.start(200, EVENTS)
            turn.exchange.write(
                b"data: " + json.dumps(delta("Hel")).encode() + b'\n\ndata: {"error":{"message":"boom"}}\n\n'
            )

        scripted.script = fails_and_stays

        def ask() -> wire.Reply:
            reply = tuned.ask(chat(model="scripted", stream=True))
            assert not reply.done
            assert reply.chunks[-1]["error"]["code"] == "upstream_error"
            return reply

        in_time(ask, 0.4)


class TestOldCallers:
    """HTTP/1.0 knows no chunks: the end of the connection ends an answer, and a reset says that it is not whole."""

    def _stream(self, cloud: EmbeddedCloud) -> bytes:
        body = json.dumps(chat(model="scripted", stream=True)).encode()
        conversation = wire.Conversation(cloud.url)
        head = f"POST {CHAT} HTTP/1.0\r\nconnection: keep-alive\r\nauthorization: Bearer {cloud.api_key}\r\n"
        conversation.socket.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        conversation.socket.settimeout(5)
        while piece := conversation.socket.recv(65536):
            conversation.received += piece
        return conversation.received

    def test_get_their_stream_without_chunk_framing(self, tuned: EmbeddedCloud) -> None:
        head, _, body = self._stream(tuned).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert body.startswith(b"data: {")
        assert body.endswith(b"\n\ndata: [DONE]\n\n")

    def test_see_a_truncated_one_reset(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        async def cut(turn: Turn) -> None:
            turn.events(delta("Hel"))
            turn.exchange.abort()

        scripted.script = cut
        with pytest.raises(ConnectionResetError):
            self._stream(tuned)


class TestAddresses:
    def _names(self, cloud: EmbeddedCloud) -> tuple[str, str]:
        key = cloud.admin.get("/admin/keys").json()["data"][0]
        return key["org_id"], key["env_id"]

    def test_model_in_the_path_wins(self, cloud: EmbeddedCloud) -> None:
        org, env = self._names(cloud)
        body = chat(max_tokens=3)
        del body["model"]
        reply = cloud.ask(body, path=f"/{org}/{env}/{QWEN}{CHAT}")
        assert (reply.status, reply.json["model"]) == (200, QWEN)
        assert cloud.row(reply.headers["x-request-id"])["model"] == QWEN

    def test_models_can_be_listed_there(self, cloud: EmbeddedCloud) -> None:
        org, env = self._names(cloud)
        reply = cloud.ask(path=f"/{org}/{env}/{QWEN}/v1/models", method="GET")
        assert {model["id"] for model in reply.json["data"]} == {LLAMA, QWEN}

    @pytest.mark.parametrize("tenant", ["/another/default", "/{org}/another"])
    @pytest.mark.parametrize("path", [CHAT, "/v1/models"])
    def test_another_tenants_address_does_not_exist(self, cloud: EmbeddedCloud, tenant: str, path: str) -> None:
        org, _ = self._names(cloud)
        method = "GET" if path == "/v1/models" else "POST"
        reply = cloud.ask(chat(), path=f"{tenant.format(org=org)}/{QWEN}{path}", method=method)
        assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")

    @pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
    def test_what_stands_beside_the_base_url_is_found_below_it_too(self, cloud: EmbeddedCloud, path: str) -> None:
        below = wire.ask(cloud.url, f"/v1{path}", method="GET")
        assert (below.status, below.headers["content-type"]) == (
            200,
            wire.ask(cloud.url, path, method="GET").headers["content-type"],
        )

    def test_so_is_the_management_api_with_its_own_key_only(self, cloud: EmbeddedCloud) -> None:
        assert cloud.admin.get("/v1/admin/nodes").status_code == 200
        assert wire.ask(cloud.url, "/v1/admin/nodes", None, cloud.key, method="GET").status == 403


BIG = {"messages": [{"role": "user", "content": "x" * 1_100_000}], "model": "scripted"}
DEEP = b'{"model":"scripted","messages":[{"role":"user","content":"x"}],"metadata":' + b"[" * 5000 + b"]" * 5000 + b"}"
REFUSED: list[tuple[str, object, int, str]] = [
    ("no JSON", b"{", 400, "invalid_json"),
    ("no UTF-8", b'{"model":"\xff"}', 400, "invalid_json"),
    ("an empty body", b"", 400, "invalid_json"),
    ("a list", b"[]", 400, "invalid_type"),
    ("NaN", b'{"model":"scripted","messages":[{"role":"user","content":"x"}],"temperature":NaN}', 400, "invalid_json"),
    ("deep nesting", DEEP, 400, "invalid_json"),
    ("no model", {"messages": [{"role": "user", "content": "x"}]}, 400, "missing_required_parameter"),
    ("a number as model", chat(model=3), 400, "invalid_type"),  # type: ignore[arg-type]
    ("an unknown model", chat(model="nothing-of-the-kind"), 404, "model_not_found"),
    ("no messages", {"model": "scripted"}, 400, "missing_required_parameter"),
    ("no message", {"model": "scripted", "messages": []}, 400, "invalid_type"),
    ("a text as messages", {"model": "scripted", "messages": "x"}, 400, "invalid_type"),
    ("a text as max_tokens", chat(model="scripted", max_tokens="5"), 400, "invalid_type"),
    ("negative max_tokens", chat(model="scripted", max_tokens=-1), 400, "invalid_value"),
    ("max_tokens over the model's", chat(model="scripted", max_tokens=1001), 400, "max_tokens_exceeded"),
    ("no choices", chat(model="scripted", n=0), 400, "invalid_value"),
    ("too many choices", chat(model="scripted", n=129), 400, "invalid_value"),
    ("a prompt over the window", chat("x" * 30_000, model="scripted"), 400, "context_length_exceeded"),
    ("an oversized body", BIG, 413, "request_too_large"),
]


class TestRefusals:
    @pytest.mark.parametrize(("body", "status", "code"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
    def test_touch_no_node_and_say_what_is_wrong(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes, body: object, status: int, code: str
    ) -> None:
        reply = tuned.ask(body)
        assert (reply.status, reply.json["error"]["code"]) == (status, code)
        assert reply.json["error"]["type"] == "invalid_request_error"
        assert reply.json["error"]["message"]
        assert scripted.turns == []

    @pytest.mark.parametrize(
        ("headers", "status", "code"),
        [
            ({}, 401, "missing_api_key"),
            ({"authorization": "Bearer nonsense"}, 401, "invalid_api_key"),
            ({"authorization": "Basic dTpw"}, 401, "missing_api_key"),
            ({"x-api-key": "nonsense"}, 401, "invalid_api_key"),
        ],
    )
    def test_callers_without_a_key(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes, headers: dict[str, str], status: int, code: str
    ) -> None:
        reply = wire.ask(tuned.url, CHAT, chat(model="scripted"), headers)
        assert (reply.status, reply.json["error"]["code"]) == (status, code)
        assert scripted.turns == []

    def test_a_caller_hears_of_an_oversized_body_while_it_still_sends(self, tuned: EmbeddedCloud) -> None:
        """Closing at once would reset the connection, and the answer would be lost with it."""
        client = openai.OpenAI(base_url=tuned.base_url, api_key=tuned.api_key, max_retries=0)
        for _ in range(5):
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat.completions.create(
                    model="scripted", messages=[{"role": "user", "content": "x" * 30_000_000}]
                )
            assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")

    def test_other_methods_and_paths(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        assert tuned.ask(path=CHAT, method="GET").status == 405
        assert tuned.ask({}, path="/v1/nothing").status == 404
        assert tuned.ask({}, path="/v1" * 5000 + "/chat/completions").status == 404
        assert tuned.ask(path="/v1/models/nothing", method="GET").json["error"]["code"] == "model_not_found"
        assert scripted.turns == []

    def test_the_engines_own_refusal_passes_as_it_is(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        words = b'{"error":{"message":"temperature must be non-negative","type":"BadRequestError","code":400}}'

        async def refuse(turn: Turn) -> None:
            turn.exchange.respond(400, JSON, words)

        scripted.script = refuse
        reply = tuned.ask(chat(model="scripted", temperature=-1))
        assert (reply.status, reply.body, len(scripted.turns)) == (400, words, 1)
        row = tuned.row(reply.headers["x-request-id"])
        assert (row["outcome"], row["total_tokens"], int(row["cost_pusd"])) == ("refused", 0, 0)


class TestRequestIds:
    def test_ours_stands_in_answer_log_ledger_and_at_the_node(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes
    ) -> None:
        request_id = tuned.ask(chat(model="scripted")).headers["x-request-id"]
        assert request_id.startswith("req_")
        assert tuned.access(request_id)["status"] == 200
        assert tuned.row(request_id)["http_status"] == 200
        assert scripted.turns[0].headers[b"x-request-id"].decode() == request_id

    def test_the_callers_own_is_echoed_and_logged_but_is_never_the_key_of_the_ledger(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes
    ) -> None:
        """Two callers may choose the same; each of their requests is a row of its own."""
        before = len(tuned.rows())
        replies = [tuned.ask(chat(model="scripted"), headers={"x-request-id": "my-own.id_7"}) for _ in range(2)]
        assert [reply.headers["x-request-id"] for reply in replies] == ["my-own.id_7"] * 2
        assert tuned.access("my-own.id_7")["status"] == 200
        ours = {turn.headers[b"x-request-id"].decode() for turn in scripted.turns}
        assert len(ours) == 2
        assert {tuned.row(request_id)["request_id"] for request_id in ours} == ours
        assert len(tuned.rows()) == before + 2

    @pytest.mark.parametrize("given", ["spaces in it", "x" * 129, "semi;colon", '"quoted"'])
    def test_an_unfit_one_is_replaced(self, tuned: EmbeddedCloud, given: str) -> None:
        reply = tuned.ask(chat(model="scripted"), headers={"x-request-id": given})
        assert reply.headers["x-request-id"].startswith("req_")

    def test_refusals_have_one_too(self, tuned: EmbeddedCloud) -> None:
        request_id = tuned.ask(b"{").headers["x-request-id"]
        assert tuned.access(request_id)["reason"] == "invalid_json"
