#!/usr/bin/env bash
# install.sh VENV: fsspec's file systems of S3, Google Cloud Storage and Azure, and servers that speak as these do, into an
# environment of its own. Nothing is done when they are there already; what cannot be had is said, and its tests are skipped.
set -euo pipefail
venv=${1:?usage: install.sh VENV}
here=$(cd "$(dirname "$0")" && pwd)
stamp=$venv/installed.txt
wanted=$(cat "$here/requirements.txt" "$here/package-lock.json" "$here/install.sh" | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi
rm -rf "$venv"
"$here/../make_venv.sh" "$venv"
echo "installing the clouds' file systems into $venv ..."
"$venv/bin/python" -m pip --disable-pip-version-check --no-input install -qq --no-deps --require-hashes \
    -r "$here/requirements.txt" ||
    { rm -rf "$venv"; echo "clouds: the packages cannot be had; their tests are skipped"; exit 0; }
if command -v npm >/dev/null; then
    cp "$here/package.json" "$here/package-lock.json" "$venv/"
    (cd "$venv" && npm ci --silent --ignore-scripts --no-audit --no-fund) ||
        echo "clouds: Azurite cannot be had; its test is skipped"
else
    echo "clouds: there is no npm for Azurite; its test is skipped"
fi
echo "$wanted" >"$stamp"
