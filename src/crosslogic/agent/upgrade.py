"""The agent becomes another version of itself: installs it into its own environment and starts itself anew in place.

Invariants: the process id stays, so that whoever supervises the agent sees no restart; the engine goes on serving; a
version that cannot be installed, or cannot be imported, is replaced by the present one again.
"""

import asyncio
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version as installed_version

PACKAGE = "crosslogic"
INSTALL_TIMEOUT_S = 600.0
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,63}")

_log = logging.getLogger(__name__)


async def install(version: str, *, python: str = sys.executable, options: Sequence[str] = ()) -> bool:
    """Whether `version` is installed now, and starts. `options` are pip's, such as another index."""
    if _VERSION.fullmatch(version) is None:
        _log.error("%r is no version", version[:64])
        return False
    present = installed_version(PACKAGE)
    requirement = f"{PACKAGE}=={version}"
    if not await _runs(python, "-m", "pip", "install", "--quiet", "--no-input", *options, requirement):
        _log.error("version %s could not be installed; staying as we are", version)
        return False
    if not await _runs(python, "-c", f"import {PACKAGE}.cli.agent"):
        _log.error("version %s does not start; going back to %s", version, present)
        await _runs(python, "-m", "pip", "install", "--quiet", "--no-input", *options, f"{PACKAGE}=={present}")
        return False
    return True


def start_anew(arguments: Sequence[str], *, python: str = sys.executable) -> None:
    """Become the installed version, with the same command line. Does not return."""
    os.execv(python, [python, "-m", "crosslogic.cli", *arguments])  # noqa: S606 - no shell is wanted


async def _runs(*command: str) -> bool:
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(INSTALL_TIMEOUT_S):
            return await process.wait() == 0
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
