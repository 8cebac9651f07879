#!/usr/bin/env bash
# Fetches the public videos, images, detector weights and network traces into data/ (or --out DIR), checked by SHA-256.
# Resumes what was interrupted. --yolov4 adds YOLOv4's weights; --help says the rest.
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/src/interpreter.sh"
exec "$python" -m cli.download "$@"
