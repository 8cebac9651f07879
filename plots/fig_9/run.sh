#!/usr/bin/env bash
# Fig. 9: latency distributions of one run, by default the newest run in log_path (logs/experiment_manager).
# Variables: log_path=DIR (of a sweep, a demo or a run), network_trace_type=NAME, run=DIR. Further arguments are options.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
source "$here/../../src/interpreter.sh"
: "${log_path:=$root/logs/experiment_manager}"
exec "$python" -m cli plot fig9 "${run:-$log_path}" --trace "${network_trace_type:-}" \
    --out "$here" "$@"
