#!/usr/bin/env bash
# Fig. 6: profiles of a zoo. zoo=NAME and further arguments change which.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
source "$here/../../src/interpreter.sh"
: "${zoo:=yolov4}"
exec "$python" -m cli plot fig6 --zoo "$zoo" --out "$here" "$@"
