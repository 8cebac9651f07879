#!/usr/bin/env bash
# Fetches the public videos, images, detector weights and network traces into data/ (or --out DIR), checked by SHA-256.
# Resumes what was interrupted. --yolov4 adds YOLOv4's weights; --help says the rest.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3) || { echo "download_data.sh: needs python3; install it first" >&2; exit 2; }
PYTHONPATH=$root/src exec "$python" -m cli.download "$@"
