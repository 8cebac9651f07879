#!/usr/bin/env bash
# Fig. 8: F1 and miss rate against the number of clients, a figure per trace of the sweep in log_path
# (logs/experiment_manager). Variables: log_path=DIR, table=FILE (a runs.csv), total_iter=N (the first N repetitions).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
: "${log_path:=$root/logs/experiment_manager}"
PYTHONPATH=$root/src:$root exec "$python" -m cli plot fig8 "${table:-$log_path}" --total-iter "${total_iter:-0}" \
    --out "$here" "$@"
