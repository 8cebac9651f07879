#!/usr/bin/env bash
# Jellyfish's experiment script: its variables, run by `moonjelly experiment run`.
#   server_ip=… client_ip=… network_trace_type=synthetic_trace total_iter=1 ./run_experiments.sh
# clients_cfg=FILE_OR_FOLDER reads Jellyfish's client lines (several client machines); hosts=FILE names a hosts file
# instead of the addresses; identity_file and known_hosts override those of SSH; log_path=DIR collects elsewhere than in
# logs/experiment_manager. Relative paths are relative to where this is called. Further arguments: of `experiment run`.
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../interpreter.sh"
fail() { echo "run_experiments.sh: $*" >&2; exit 2; }
case " $* " in *" --help "*) exec "$python" -m cli experiment run --help ;; esac

hosts=${hosts:-${MOONJELLY_HOSTS:-}}
if [ -n "${server_ip:-}${client_ip:-}" ] || [ -z "$hosts" ]; then
    [ -n "${server_ip:-}" ] || fail "server_ip is not set: the address of the server, or hosts=FILE"
    [ -n "${client_ip:-}" ] || fail "client_ip is not set: the address of the client machine, or hosts=FILE"
    keys=
    if [ -n "${identity_file:-}" ]; then keys+="identity_file = \"$identity_file\""$'\n'; fi
    if [ -n "${known_hosts:-}" ]; then keys+="known_hosts = \"$known_hosts\""$'\n'; fi
    exec 3<<TOML
$keys
[server]
name = "server"
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
interface = "${client_network_iface:-eth0}"
TOML
    hosts=/dev/fd/3
fi
exec "$python" -m cli experiment run --hosts "$hosts" \
    --traces "${network_trace_type:-synthetic_trace}" --repetitions "${total_iter:-3}" \
    --out "${log_path:-$root/logs/experiment_manager}" ${clients_cfg:+--clients-cfg "$clients_cfg"} "$@"
