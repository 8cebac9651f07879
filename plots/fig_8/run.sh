#!/usr/bin/env bash
# Fig. 8: F1 and miss rate against the number of clients, a figure per trace of the sweep in log_path
# (logs/experiment_manager). Variables: log_path=DIR, table=FILE (a runs.csv), total_iter=N (the first N repetitions).
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
source "$here/../../src/interpreter.sh"
: "${log_path:=$root/logs/experiment_manager}"
exec "$python" -m cli plot fig8 "${table:-$log_path}" --total-iter "${total_iter:-0}" --out "$here" "$@"
