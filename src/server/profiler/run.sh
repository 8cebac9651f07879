#!/usr/bin/env bash
# Profiles DNNs for their latency at every batch size, as Jellyfish's script of this name does:
#   ./run.sh                  2 GPUs, 16 DNNs, batches 1 to 12, 2000 runs each of which the first 10 are dropped
#   num_gpus=1 ./run.sh       one GPU; without a GPU, CPU processes
# Any other option of 'moonjelly profile' may follow. Profiles that exist are never overwritten.
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../interpreter.sh"
num_gpus=${num_gpus:-2}
total_dnns=${total_dnns:-16}
max_batch=${max_batch:-12}
total_batches=${total_batches:-2000}
warmup=${warmup:-10}

if [ -z "${zoo:-}" ]; then
    zoo=yolov4
    if ! "$python" -m server.profiler.available "$zoo"; then
        zoo=synthetic
        echo "run.sh: YOLOv4's weights are not here (./download_data.sh --yolov4 gets them); profiling '$zoo'" >&2
    fi
fi
exec "$python" -m cli.as_script run.sh server.profiler --zoo "$zoo" --num-gpus "$num_gpus" --num-dnns "$total_dnns" \
    --max-batch "$max_batch" --num-batches "$total_batches" --warmup "$warmup" "$@"
