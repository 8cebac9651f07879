#!/usr/bin/env bash
# Makes src/moonjelly/rpc/*_pb2*.py from protos/. With --check: fails if the committed stubs differ.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
out=$root/src
if [ "${1:-}" = "--check" ]; then out=$(mktemp -d); trap 'rm -rf "$out"' EXIT; fi
cd "$root"
"$python" -m grpc_tools.protoc -Imoonjelly/rpc=protos --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
    $(cd protos && for f in *.proto; do echo "moonjelly/rpc/$f"; done)
if [ "${1:-}" = "--check" ]; then
    for file in "$out"/moonjelly/rpc/*_pb2*; do
        diff -u "src/moonjelly/rpc/$(basename "$file")" "$file" || { echo "stubs differ from protos/: run protos/generate_proto.sh" >&2; exit 1; }
    done
    echo "stubs match protos/"
fi
