"""What the agent decides from what it is told: command lines, pauses, notices, and when a certificate is due."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.agent import backoff, notices
from crosslogic.agent.commands import TEMPLATES, command
from crosslogic.agent.log_stream import LogStream
from crosslogic.agent.messages import fragmentation_of, says_out_of_memory
from crosslogic.agent.model import Certificate, EngineName, EngineOptions, GpuState, Hardware, SpotNotice
from crosslogic.fleet.identity import NodeIdentity, identity_of
from crosslogic.fleet.join_token import new_token, read_token
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.ids import NodeId, OrgId

KEY = "engine-secret"


def options(name: EngineName, **fields: object) -> EngineOptions:
    return EngineOptions(**{"name": name, "model": "m/x", "host": "0.0.0.0", "port": 9000, "api_key": KEY, **fields})  # type: ignore[arg-type]


def test_every_engine_is_started_with_model_address_and_the_users_own_options() -> None:
    lines = {name: command(options(name, arguments=("--more", "1"))) for name in EngineName}
    assert lines.keys() == TEMPLATES.keys()
    vllm, environment = lines[EngineName.VLLM]
    assert vllm == ["vllm", "serve", "m/x", "--host", "0.0.0.0", "--port", "9000", "--more", "1"]
    assert environment == {"VLLM_API_KEY": KEY}
    assert lines[EngineName.SGLANG][0][:5] == [sys.executable, "-m", "sglang.launch_server", "--model-path", "m/x"]
    assert "--enable-metrics" in lines[EngineName.SGLANG][0]
    assert "--metrics" in lines[EngineName.LLAMACPP][0]
    assert lines[EngineName.OLLAMA] == (["ollama", "serve", "--more", "1"], {"OLLAMA_HOST": "0.0.0.0:9000"})
    assert lines[EngineName.SIMULATE][0][:3] == [sys.executable, "-m", "crosslogic.simulator"]
    for name in (EngineName.VLLM, EngineName.LLAMACPP, EngineName.SIMULATE):
        assert KEY not in " ".join(lines[name][0])


def test_fetched_weights_are_served_under_the_models_name() -> None:
    for name, flag in (
        (EngineName.VLLM, "--served-model-name"),
        (EngineName.SGLANG, "--served-model-name"),
        (EngineName.LLAMACPP, "--alias"),
    ):
        words = command(options(name, weights=Path("/disk/m--x")))[0]
        assert "/disk/m--x" in words
        assert words[words.index(flag) + 1] == "m/x"


def test_a_command_of_ones_own_takes_the_place_of_ours() -> None:
    own = options(EngineName.VLLM, command=("docker", "run", "-p", "{port}:8000", "img", "{model}"), api_key=None)
    assert command(own)[0] == ["docker", "run", "-p", "9000:8000", "img", "m/x"]
    assert command(options(EngineName.OLLAMA, model=""))[0] == ["ollama", "serve"]
    with pytest.raises(ConfigurationError, match="--model"):
        command(options(EngineName.VLLM, model=""))


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_pauses_grow_are_spread_and_end(failures: int, chance: float) -> None:
    pause_s = backoff.pause_s(failures, chance)
    assert 0 < pause_s <= backoff.LONGEST_S
    assert pause_s <= backoff.pause_s(failures + 1, chance)
    assert backoff.pause_s(failures, 0.0) <= pause_s <= backoff.pause_s(failures, 1.0)


@given(st.binary(max_size=200), st.sampled_from([0, 200, 404, 500]))
def test_nothing_that_a_metadata_service_says_can_raise(body: bytes, status: int) -> None:
    notices.aws_notice(status, body)
    notices.azure_notice(status, body, "x")
    assert not notices.aws_rebalance(status, body)
    notices.azure_place(body)
    assert notices.gcp_notice(status, body) is None or body.strip() == b"TRUE"


def test_only_what_takes_the_machine_away_is_a_notice() -> None:
    assert notices.aws_notice(200, b'{"action": "hibernate", "time": "t"}') == SpotNotice("aws", "hibernate", "t")
    assert notices.aws_notice(200, b'{"action": "rebalance"}') is None
    assert notices.aws_notice(404, b'{"action": "terminate"}') is None
    for kind, status, expected in (
        ("Preempt", "Scheduled", "preempt"),
        ("Terminate", "Started", "terminate"),
        ("Reboot", "Scheduled", None),
        ("Freeze", "Scheduled", None),
        ("Preempt", "Completed", None),
    ):
        body = f'{{"Events": [{{"EventType": "{kind}", "EventStatus": "{status}", "Resources": ["me"]}}]}}'.encode()
        notice = notices.azure_notice(200, body, "me")
        assert (notice.action if notice else None) == expected
        assert notices.azure_notice(200, body, "somebody") is None


def test_a_rebalance_recommendation_is_one_that_says_when() -> None:
    assert notices.aws_rebalance(200, b'{"noticeTime": "2020-10-27T08:22:00Z"}')
    assert not notices.aws_rebalance(404, b'{"noticeTime": "2020-10-27T08:22:00Z"}')
    assert not notices.aws_rebalance(200, b'{"noticeTime": ""}')
    assert not notices.aws_rebalance(200, b"{}")


def test_a_certificate_is_due_when_two_thirds_of_its_life_are_over() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = Certificate(begin, begin + timedelta(days=3))
    assert not certificate.is_due(begin + timedelta(days=2, seconds=-1))
    assert certificate.is_due(begin + timedelta(days=2))


@given(
    node=st.text("abcXYZ019-_.", min_size=1, max_size=128), org=st.none() | st.text("abc_019", min_size=1, max_size=40)
)
def test_an_identity_is_read_back_from_its_name(node: str, org: str | None) -> None:
    identity = NodeIdentity(NodeId(node), None if org is None else OrgId(org))
    assert identity_of([identity.uri]) == identity


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["spiffe://crosslogic/platform/node/a", "spiffe://crosslogic/platform/node/b"],
        ["spiffe://crosslogic/platform/node/a", "other:dns"],
        ["spiffe://elsewhere/platform/node/a"],
        ["spiffe://crosslogic/org//node/a"],
        ["spiffe://crosslogic/org/x/node/"],
        ["spiffe://crosslogic/platform/node/a/b"],
        ["spiffe://crosslogic/platform/node/a b"],
    ],
)
def test_other_names_are_nobodys(names: list[str]) -> None:
    assert identity_of(names) is None


@given(st.text(max_size=120))
def test_text_that_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_token("clsk_join_" + text)
    assert len(text) < 12 or text not in str(raised.value)


def test_a_token_is_read_back_and_not_shown() -> None:
    token = new_token(b"f" * 32)
    assert read_token(f" {token.text}\n") == token
    assert token.seed.hex() not in repr(token)
    assert repr(token.seed) not in repr(token)


def test_free_memory_is_the_sum_of_what_is_known() -> None:
    gpus = (
        GpuState(0, "H100", vram_total_mb=80, vram_used_mb=30),
        GpuState(1, "H100", vram_total_mb=80, vram_used_mb=0),
    )
    machine = Hardware(8, 64_000, gpus)
    assert (machine.gpu_type, machine.vram_total_mb, machine.vram_free_mb) == ("H100", 160, 130)
    assert Hardware(8, 64_000).vram_free_mb is None


@pytest.mark.parametrize(
    ("line", "failed"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of", True),
        ("RuntimeError: HIP out of memory. Tried to allocate 32.00 MiB", True),
        ("alloc_buffer: allocating 8192.00 MiB on device 0: cudaMalloc failed: out of memory", True),
        ("INFO: GPU KV cache size: 1,024,000 tokens", False),
        ("the caller ran out of patience", False),
    ],
)
def test_an_allocation_that_failed_is_read_out_of_an_engines_log(line: str, failed: bool) -> None:
    assert says_out_of_memory(line) is failed


def test_fragmentation_is_what_the_engine_says_of_it_and_nothing_where_it_says_none() -> None:
    assert fragmentation_of({"vllm:num_requests_running": 1.0}) is None
    assert fragmentation_of({"exporter_vram_fragmentation_ratio": 0.4, "x": 2.0}) == 0.4
    assert fragmentation_of({"exporter_vram_fragmentation_ratio": 40.0}) is None  # percent, or a sum of several


async def test_out_of_memory_in_the_engines_log_is_counted_once_for_lines_that_come_together(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("CUDA out of memory: long ago\n")
    stream = LogStream()
    following = asyncio.create_task(stream.follow(log))
    try:
        for times in (1, 2):
            await asyncio.sleep(0.1)
            with log.open("a") as file:
                file.write("Traceback:\ntorch.OutOfMemoryError: CUDA out of memory\nCUDA out of memory, again\n")
            async with asyncio.timeout(20):
                while stream.oom_events < times:
                    await asyncio.sleep(0.05)
            assert stream.oom_events == times
    finally:
        following.cancel()
