#!/bin/sh
# Writes requirements.lock (what runs) and requirements-dev.lock (and what tests): every version with its hashes,
# for every platform, without the address of any package index.
set -eu
cd "$(dirname "$0")/.."

if command -v uv >/dev/null; then
    uv=uv
else
    tool=.venv-lock
    [ -x $tool/bin/uv ] || { tools/make_venv.sh $tool && $tool/bin/python -m pip install --quiet uv; }
    uv=$tool/bin/uv
fi

compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@"
}

compile --extra build --extra dev pyproject.toml -o requirements-dev.lock
# the same versions in both
compile -c requirements-dev.lock --extra build pyproject.toml -o requirements.lock
