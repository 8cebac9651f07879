#!/usr/bin/env bash
# Fig. 7: adaptation over time of one run, by default the newest run of the synthetic trace in log_path (logs/experiment_manager).
# Variables: log_path=DIR (of a sweep, a demo or a run), network_trace_type=NAME, run=DIR. Further arguments are options.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
: "${log_path:=$root/logs/experiment_manager}"
PYTHONPATH=$root/src:$root exec "$python" -m cli plot fig7 "${run:-$log_path}" --trace "${network_trace_type:-synthetic_trace}" \
    --out "$here" "$@"
