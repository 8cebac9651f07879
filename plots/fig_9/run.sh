#!/usr/bin/env bash
# Fig. 9: latency distributions of one run. run=DIR; by default the newest run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
logs=$root/logs/experiment_manager
run=${run:-$({ find "$logs" -name run.json -printf "%T@ %h\n" 2>/dev/null || true; } | sort -n | tail -n 1 | cut -d" " -f2-)}
[ -n "$run" ] || { echo "fig_9: no run below $logs; run an experiment, or name one with run=DIR" >&2; exit 2; }
PYTHONPATH=$root/src:$root exec "$python" -m cli plot fig9 "$run" --out "$here" "$@"
