#!/bin/sh
# make_venv.sh DIR [PYTHON]: a virtual environment with the first Python that is new enough.
set -eu
directory=$1
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

for python in ${2:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
    if "$python" -c "$new_enough" 2>/dev/null; then
        # Debian ships venv in a package of its own.
        "$python" -m venv "$directory" && exit 0
        rm -rf "$directory"
        echo "$python cannot make a virtual environment; install its venv module (Debian: python3-venv)" >&2
        exit 2
    fi
done
echo "Python 3.11 or newer is needed and none was found; install it, or say where: make PYTHON=/path/to/python" >&2
exit 2
