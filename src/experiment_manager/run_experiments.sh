#!/usr/bin/env bash
# Jellyfish's experiment script: its variables, run by `moonjelly experiment run`.
#   server_ip=… client_ip=… network_trace_type=synthetic_trace total_iter=1 ./run_experiments.sh
# hosts=FILE names a hosts file instead (several client machines); further arguments go to `experiment run`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
fail() { echo "run_experiments.sh: $*" >&2; exit 2; }

network_trace_type=${network_trace_type:-synthetic_trace}
total_iter=${total_iter:-3}
hosts=${hosts:-${MOONJELLY_HOSTS:-}}
if [ -z "$hosts" ]; then
    [ -n "${server_ip:-}" ] || fail "server_ip is not set: the address of the server, or hosts=FILE"
    [ -n "${client_ip:-}" ] || fail "client_ip is not set: the address of the client machine, or hosts=FILE"
    hosts=$(mktemp)
    trap 'rm -f "$hosts"' EXIT
    cat > "$hosts" <<TOML
[server]
host = "$server_ip"
port = ${server_ssh_port:-22}
user = "${server_username:-$(id -un)}"
root_dir = "${server_root_dir:-$root}"
work_dir = "${server_work_dir:-/tmp/moonjelly-runs}"

[[clients]]
name = "client0"
host = "$client_ip"
port = ${client_ssh_port:-22}
user = "${client_username:-$(id -un)}"
root_dir = "${client_root_dir:-$root}"
work_dir = "${client_work_dir:-/tmp/moonjelly-runs}"
interface = "${client_interface:-eth0}"
TOML
fi
cd "$root"
PYTHONPATH=$root/src:$root "$python" -m cli experiment run --hosts "$hosts" --traces "$network_trace_type" \
    --repetitions "$total_iter" --out "logs/experiment_manager" "$@"
