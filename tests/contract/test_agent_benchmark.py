"""The agent's measurement of a simulated engine agrees with what that engine is made to do."""

import msgspec

from crosslogic.agent.benchmark import DECODE_STREAMS, benchmark
from crosslogic.agent.model import Capacity
from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import find_profile
from tests.flow.clouds import LLAMA
from tests.ports import free_port


async def measured(speedup: float) -> Capacity:
    profile = find_profile(LLAMA, "H100", 1, None, None)
    node = SimulatedNode(profile, NodeOptions(port=0, speedup=speedup), on_crash=lambda: None)
    await node.start()
    try:
        return await benchmark(node.url, LLAMA)
    finally:
        await node.close(0.0)


async def test_an_engine_is_measured_as_it_is() -> None:
    capacity = await measured(speedup=1.0)
    # An H100 gives one stream of an 8B model roughly 60 to 250 tokens/s, and reads many times as fast as it writes.
    assert 60 * DECODE_STREAMS / 4 < capacity.decode_tokens_per_s < 250 * DECODE_STREAMS * 2
    assert capacity.prefill_tokens_per_s > capacity.decode_tokens_per_s
    slower = await measured(speedup=0.25)
    assert slower.decode_tokens_per_s < capacity.decode_tokens_per_s / 2


async def test_an_engine_that_cannot_be_measured_has_no_capacity() -> None:
    assert await benchmark(f"http://127.0.0.1:{free_port()}", LLAMA) == Capacity()
    assert msgspec.structs.asdict(Capacity()) == {"prefill_tokens_per_s": 0.0, "decode_tokens_per_s": 0.0}
