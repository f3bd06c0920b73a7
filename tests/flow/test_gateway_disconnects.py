"""A caller that leaves stops the work at once, and pays for what was done until then."""

import asyncio
import time

import httpx
import pytest

from tests.flow import wire
from tests.flow.clouds import CHAT, LLAMA, EmbeddedCloud, chat, node_metric
from tests.flow.processes import eventually
from tests.flow.scripted import USAGE, ScriptedNodes, Turn, delta

LONG = 4000  # tokens: half a minute of work


@pytest.fixture(autouse=True)
def _well_behaved(scripted: ScriptedNodes) -> None:
    scripted.forget()


def _idle(cloud: EmbeddedCloud) -> bool:
    return cloud.running(LLAMA) == 0


class TestInAStream:
    @pytest.mark.parametrize("leave", ["close", "reset"])
    def test_the_node_hears_of_it_within_100_ms(self, cloud: EmbeddedCloud, leave: str) -> None:
        """The best of some tries: other programs on the machine only ever add. It hears of each of them."""
        taken_s: list[float] = []
        while len(taken_s) < 6 and min(taken_s, default=1.0) >= 0.1:
            taken_s.append(self._seconds_until_it_hears(cloud, leave))
        assert min(taken_s) < 0.1

    @staticmethod
    def _seconds_until_it_hears(cloud: EmbeddedCloud, leave: str) -> float:
        urls = [node["endpoint_url"] for node in cloud.nodes(LLAMA)]
        eventually(lambda: _idle(cloud), 5)
        conversation = cloud.begin(chat("leave", max_tokens=LONG, stream=True))
        conversation.until(lambda data: data.count(b"\n\n") > 6)
        (busy,) = [url for url in urls if node_metric(url, "num_requests_running")]
        with httpx.Client(trust_env=False) as watcher:
            watcher.get(f"{busy}/metrics")  # the connection is open: what is measured is the gateway
            getattr(conversation, leave)()
            left_s = time.monotonic()
            while 'vllm:num_requests_running{engine="0",model_name="' + LLAMA + '"} 0.0' not in (
                watcher.get(f"{busy}/metrics").text
            ):
                assert time.monotonic() - left_s < 10.0
            return time.monotonic() - left_s

    def test_what_was_generated_is_billed(self, cloud: EmbeddedCloud) -> None:
        conversation = cloud.begin(chat("and bill", max_tokens=LONG, stream=True))
        conversation.until(lambda data: data.count(b'"content":') > 20)
        conversation.close()
        reply = wire.Reply(conversation.received, "closed", 0)
        seen = sum(bool(chunk["choices"][0]["delta"].get("content")) for chunk in _whole_chunks(reply))
        row = cloud.row(reply.headers["x-request-id"])
        assert (row["outcome"], row["evidence"], row["http_status"]) == ("client_closed", "counted", 499)
        assert seen <= row["completion_tokens"] <= seen + 60
        assert row["prompt_tokens"] > 0
        assert int(row["cost_pusd"]) > 0

    def test_before_the_first_token_costs_nothing(self, cloud: EmbeddedCloud) -> None:
        known = cloud.known_rows()
        conversation = cloud.begin(chat(stream=True), headers={"x-simulate-fault": "slow_first_token=5"})
        time.sleep(0.3)
        conversation.close()
        row = cloud.new_row(known)
        assert (row["outcome"], row["total_tokens"], row["evidence"]) == ("client_closed", 0, "none")

    def test_after_the_last_token_changes_nothing(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        """The caller has read `finish_reason` and hangs up, as many programs do."""

        async def linger(turn: Turn) -> None:
            turn.events(delta("Hello"), delta(None, "stop"))
            await asyncio.sleep(0.1)
            turn.events({"choices": [], "usage": USAGE})

        scripted.script = linger
        conversation = tuned.begin(chat(model="scripted", stream=True))
        conversation.until(lambda data: b'"stop"' in data)
        conversation.close()
        row = tuned.row(wire.Reply(conversation.received, "closed", 0).headers["x-request-id"])
        assert (row["completion_tokens"], row["evidence"]) == (USAGE["completion_tokens"], "engine")


class TestInAWholeAnswer:
    def test_the_node_hears_of_it_and_nothing_is_billed_that_is_not_proven(self, cloud: EmbeddedCloud) -> None:
        """Nothing passed through, so that nothing can be counted. Its node's pace is known, but not what it did."""
        for _ in range(4):  # both nodes show their pace
            assert cloud.ask(chat(max_tokens=30)).status == 200
        known = cloud.known_rows()
        eventually(lambda: _idle(cloud), 5)
        conversation = cloud.begin(chat("leave", max_tokens=LONG))
        eventually(lambda: not _idle(cloud), 5)
        time.sleep(0.7)
        conversation.close()
        eventually(lambda: _idle(cloud), 10)
        row = cloud.new_row(known)
        assert (row["outcome"], row["evidence"], row["http_status"]) == ("client_closed", "none", 499)
        assert (row["total_tokens"], int(row["cost_pusd"])) == (0, 0)

    def test_what_generates_nothing_is_not_guessed_at(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        async def never(turn: Turn) -> None:
            await turn.drained()  # and then nothing

        known = tuned.known_rows("scripted")
        scripted.forget()
        scripted.script = never
        body = {"model": "scripted", "input": "embed me"}
        conversation = tuned.begin(body, path="/v1/embeddings")
        eventually(lambda: scripted.turns, 10)
        conversation.close()
        eventually(lambda: scripted.turns[0].left_s, 10)
        row = tuned.new_row(known)
        assert (row["outcome"], row["total_tokens"], row["attempts"]) == ("client_closed", 0, 1)


class TestSlowCallers:
    def test_what_a_caller_does_not_read_is_not_fetched_either(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes
    ) -> None:
        """Backpressure: the gateway's memory is not the buffer between a fast node and a slow caller."""
        sent = []

        async def pour(turn: Turn) -> None:
            for _ in range(400):
                if turn.left_s is not None:
                    return
                turn.events(delta("x" * 65_000))
                sent.append(1)
                await turn.drained()

        scripted.script = pour
        conversation = wire.Conversation(tuned.url, receive_buffer_bytes=4096)
        conversation.send(CHAT, chat(model="scripted", stream=True), tuned.key)
        time.sleep(0.4)
        assert len(sent) < 200, "26 MB are there to be sent"
        conversation.close()

    def test_one_that_stops_reading_for_good_does_not_hold_its_connection(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes
    ) -> None:
        async def pour(turn: Turn) -> None:
            while turn.left_s is None:
                turn.events(delta("x" * 65_000))
                await turn.drained()

        scripted.script = pour
        conversation = wire.Conversation(tuned.url, receive_buffer_bytes=4096)
        port = conversation.socket.getsockname()[1]
        conversation.send(CHAT, chat(model="scripted", stream=True), tuned.key)
        eventually(lambda: _connected(tuned.program.pid, port), 10)
        eventually(lambda: not _connected(tuned.program.pid, port), 9, 0.1)
        conversation.close()


def _connected(pid: int, peer_port: int) -> bool:
    """Whether the gateway still holds a socket whose other end is at `peer_port`."""
    with open(f"/proc/{pid}/net/tcp") as table:
        entries = [line.split() for line in table.readlines()[1:]]
    return any(entry[2].endswith(f":{peer_port:04X}") and entry[9] != "0" for entry in entries)


def _whole_chunks(reply: wire.Reply) -> list[dict]:
    body = reply.body[: reply.body.rfind(b"\n\n") + 2]
    whole = wire.Reply(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + body, "closed", 0)
    return whole.chunks
