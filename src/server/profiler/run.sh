#!/usr/bin/env bash
# Profiles DNNs for their latency at every batch size, as Jellyfish's script of this name does:
#   ./run.sh                  2 GPUs, 16 DNNs, batches 1 to 12, 2000 runs each of which the first 10 are dropped
#   num_gpus=1 ./run.sh       one GPU; without a GPU, CPU processes
# Any other option of 'moonjelly profile' may follow. Profiles that exist are never overwritten.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
num_gpus=${num_gpus:-2}
total_dnns=${total_dnns:-16}
max_batch=${max_batch:-12}
total_batches=${total_batches:-2000}
warmup=${warmup:-10}

python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3) || { echo "run.sh: no python3; run $root/run.sh once" >&2; exit 2; }
export PYTHONPATH=$root/src:$root${PYTHONPATH:+:$PYTHONPATH}
if [ -d "$root/../shared/data" ]; then export MOONJELLY_DATA=${MOONJELLY_DATA:-$root/../shared/data}; fi

if [ -z "${zoo:-}" ]; then
    zoo=yolov4
    if ! "$python" -m server.profiler.available "$zoo"; then
        zoo=synthetic
        echo "run.sh: YOLOv4's weights are not here (./download_data.sh --yolov4 gets them); profiling '$zoo'" >&2
    fi
fi
exec "$python" -m cli.as_script run.sh server.profiler --zoo "$zoo" --num-gpus "$num_gpus" --num-dnns "$total_dnns" \
    --max-batch "$max_batch" --num-batches "$total_batches" --warmup "$warmup" "$@"
