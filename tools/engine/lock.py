"""Write the hashes of every pin in requirements.txt anew; run it after changing a version there by hand.

    .venv/bin/python tools/engine/lock.py          (needs uv, which `make lock` installs, on the path)

Only wheels for CPython 3.11 on x86-64 Linux are listed, where the tests run. Dependencies are not resolved: the list
leaves out what vLLM asks for and a CPU server never loads (triton, torchvision, torchaudio, torchcodec, opencv).
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

PINS = Path(__file__).parent / "requirements.txt"
PYTHON = (3, 11)
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]

# PyTorch's build without CUDA, torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl. The public index has only
# the build with CUDA, which does not start without gigabytes of further libraries.
CPU_TORCH = "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"


def main() -> None:
    pins = [line.split(" ")[0] for line in PINS.read_text().splitlines() if "==" in line]
    tags = {*cpython_tags(PYTHON, platforms=PLATFORMS), *compatible_tags(PYTHON, "cp311", PLATFORMS)}
    lines = []
    for package in sorted(locked(pins), key=lambda package: package["name"]):
        pin = f"{package['name']}=={package['version']}"
        hashes = {CPU_TORCH} if package["name"] == "torch" else hashes_of(package, tags)
        if not hashes:
            sys.exit(f"{pin} has no wheel for CPython 3.11 on x86-64 Linux")
        lines.append(" ".join([pin, *(f"--hash=sha256:{value}" for value in sorted(hashes))]))
    PINS.write_text("\n".join(lines) + "\n")


def locked(pins: list[str]) -> list[dict[str, Any]]:
    """What the index knows of these versions, as PEP 751 writes it."""
    with tempfile.TemporaryDirectory() as directory:
        source, lock = Path(directory, "pins.in"), Path(directory, "pylock.toml")
        source.write_text("\n".join(pins))
        command = ["uv", "pip", "compile", "--quiet", "--no-deps", "--universal", "--python-version", "3.11"]
        subprocess.run([*command, "--format", "pylock.toml", source, "-o", lock], check=True)  # noqa: S603 - our own words
        packages: list[dict[str, Any]] = tomllib.loads(lock.read_text())["packages"]
        return packages


def hashes_of(package: dict[str, Any], tags: set[Tag]) -> set[str]:
    """The hashes of the wheels that fit."""
    names = {wheel["url"].rsplit("/", 1)[-1]: wheel["hashes"]["sha256"] for wheel in package.get("wheels", ())}
    return {value for name, value in names.items() if not tags.isdisjoint(parse_wheel_filename(name)[3])}


if __name__ == "__main__":
    main()
