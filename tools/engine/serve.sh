#!/bin/sh
# serve.sh VENV MODEL PORT NAME [options of vllm serve]: a real vLLM on one CPU core, on the loopback interface.
# ENGINE_API_KEY is the key that it asks for. It needs 2.7 GB of memory and takes about 30 s to start.
set -eu
venv=$1 model=$2 port=$3 name=$4
shift 4

# It fetches and reports nothing, and leaves the other cores alone.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
export VLLM_HOST_IP=127.0.0.1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
# Its thousands of modules are compiled at the first start only.
unset PYTHONDONTWRITEBYTECODE

exec "$venv/bin/vllm" serve "$model" --served-model-name "$name" --host 127.0.0.1 --port "$port" \
    --api-key "${ENGINE_API_KEY:?}" --dtype float32 --max-model-len 8192 --max-num-seqs 64 --enforce-eager "$@"
