#!/usr/bin/env bash
# Fig. 6: profiles of a zoo. zoo=NAME and further arguments change which.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
: "${zoo:=yolov4}"
PYTHONPATH=$root/src:$root exec "$python" -m cli plot fig6 --zoo "$zoo" --out "$here" "$@"
