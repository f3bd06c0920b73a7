"""Simulated nodes as child processes of the embedded cloud: real servers, which may be killed to see what happens."""

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

import msgspec

from crosslogic.kernel.errors import Unavailable

MODELS = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct")
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 8.0
_POLL_S = 0.01


class SimulatedNodes:
    """Starts `count` of them, of alternating models; they end with this process, however it ends."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> list[str]:
        """The base URLs of all nodes, once they listen. Raises Unavailable when one does not come up."""
        with tempfile.TemporaryDirectory(prefix="crosslogic-up-") as directory:
            files = [Path(directory) / f"node-{number}.json" for number in range(self._count)]
            for number, file in enumerate(files):
                self._processes.append(await _spawn(MODELS[number % len(MODELS)], number, file))
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    return [await self._address(number, file) for number, file in enumerate(files)]
            except TimeoutError:
                raise Unavailable(f"a simulated node did not start within {START_TIMEOUT_S:.0f} s") from None

    async def _address(self, number: int, file: Path) -> str:
        while not file.exists():
            if self._processes[number].returncode is not None:
                raise Unavailable("a simulated node ended at once; run `crosslogic simulate` to see why")
            await asyncio.sleep(_POLL_S)
        address: str = msgspec.json.decode(file.read_bytes())["base_url"]
        return address

    async def stop(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
        for process in self._processes:
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _spawn(model: str, seed: int, ready_file: Path) -> asyncio.subprocess.Process:
    arguments = ["--model", model, "--port", "0", "--seed", str(seed), "--ready-file", str(ready_file)]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "crosslogic.simulator",
        *arguments,
        "--exit-with-parent",
        stdin=asyncio.subprocess.PIPE,  # its end tells the node that we are gone
        stdout=asyncio.subprocess.DEVNULL,
    )
