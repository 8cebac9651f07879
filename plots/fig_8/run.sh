#!/usr/bin/env bash
# Fig. 8: F1 and miss rate against the number of clients. table=FILE; total_iter=N uses the first N repetitions.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
: "${table:=$root/logs/experiment_manager/runs.csv}" "${total_iter:=0}"
PYTHONPATH=$root/src:$root exec "$python" -m cli plot fig8 "$table" --total-iter "$total_iter" --out "$here" "$@"
