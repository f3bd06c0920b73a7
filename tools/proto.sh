#!/bin/sh
# Generates what Python needs of node_agent.proto; run it after each change there, and commit what it writes.
set -eu
cd "$(dirname "$0")/.."

tool=.venv-proto
[ -x $tool/bin/python ] || { tools/make_venv.sh $tool && $tool/bin/python -m pip install --quiet grpcio-tools; }
$tool/bin/python -m grpc_tools.protoc -I src \
    --python_out=src --pyi_out=src src/crosslogic/fleet/wire/node_agent.proto
