#!/usr/bin/env bash
# Planning time against the size of the problem; --full for the paper's size, --help for the rest.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
PYTHONPATH=$root/src:$root exec "$python" -m cli simulate timings "$@"
