#!/usr/bin/env bash
# Planning policies against the optimum on random instances; --full for the paper's size, --help for the rest.
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../interpreter.sh"
exec "$python" -m cli simulate compare "$@"
