#!/usr/bin/env bash
# Starts the server with Jellyfish's defaults: 2 GPUs, 16 DNNs, a planning interval of 0.5 s, 5 resident models, batches
# of up to 12, logs in logs/server/, on all interfaces. From any directory; stops, with all it started, on SIGTERM
# (pkill --signal 15 run.sh).
#   num_gpus=1 ./run.sh                            one device
#   runtime=onnx zoo=synthetic num_gpus=1 ./run.sh really infers on the CPU
#   ./run.sh --token SECRET                        further options of 'moonjelly serve'
# Without a GPU, num_gpus counts simulated devices, which behave like the profile of the zoo.
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../interpreter.sh"

if [ -z "${runtime:-}" ]; then
    if compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
        runtime=torch
    else
        runtime=simulated
        echo "run.sh: no GPU here: simulating ${num_gpus:-2} of them (runtime=onnx zoo=synthetic infers on the CPU)" >&2
    fi
fi

exec "$python" -m cli.as_script run.sh server --zoo "${zoo:-yolov4}" --runtime "$runtime" --devices "${num_gpus:-2}" \
    --host "${host:-0.0.0.0}" --port "${port:-10001}" --interval-s "${interval_s:-0.5}" \
    --resident "${resident:-5}" --max-batch "${max_batch:-12}" --out "${log_dir:-$root/logs/server}" "$@"
