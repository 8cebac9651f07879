#!/usr/bin/env bash
# One client over a shaped uplink, as on a Jellyfish client machine:
#   run_network_shaping.sh <server_host> <my_host_id> <slo> <fps> <video_name> <network_iface> <network_trace_type>
#   sudo ./run_network_shaping.sh 10.0.0.1 host_0 100 15 traffic.mp4 eth0 lte_upload_trace
# The trace is a name (synthetic_trace, wifi_trace, lte_upload_trace, lte-city, ...) or a file, begun at a random offset.
# Logs go to logs/client/<my_host_id>/ (frame_stats.csv, shaping.csv). Variables: root_dir, log_path, server_port, seed,
# client_args (more options of 'moonjelly client'), shaping=relay (without root: a relay instead of tc; the interface is
# not used then). Ends with the client; SIGTERM or Ctrl-C stops it. The interface is left as it was.
set -euo pipefail
if [ $# -ne 7 ]; then
    echo "Usage: $0 <server_host> <my_host_id> <slo> <fps> <video_name> <network_iface> <network_trace_type>" >&2
    exit 2
fi
server_host=$1 my_host_id=$2 slo=$3 fps=$4 video_name=$5 network_iface=$6 network_trace=$7
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../interpreter.sh"
root_dir=${root_dir:-$root}
log_path=${log_path:-$root_dir/logs/client/$my_host_id}
server_port=${server_port:-10001}
seed=${seed:-0}
shaping=${shaping:-tc}

command=("$python" -m network_shaping "$shaping" --target "$server_host:$server_port"
    --link "$my_host_id=$network_trace@random" --seed "$seed" --out "$log_path")
[ "$shaping" = relay ] || command+=(--interface "$network_iface")

client_pid=
# In a session of its own: Ctrl-C reaches all of a terminal's processes, and the link must end after the client.
coproc SHAPING { exec setsid "${command[@]}"; }
shaping_pid=$SHAPING_PID
finish() {
    if [ -n "$client_pid" ]; then  # it settles what it has sent over the link, so the link ends after it
        kill -TERM "$client_pid" 2>/dev/null || true
        wait "$client_pid" || true
    fi
    kill -TERM "$shaping_pid" 2>/dev/null || true
    wait "$shaping_pid" || true
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

if ! IFS= read -r ready <&"${SHAPING[0]}"; then
    wait "$shaping_pid" || exit $?
fi
port=$("$python" -c 'import json, sys; print(json.loads(sys.argv[1])["ports"][0])' "$ready")
# shellcheck disable=SC2086  # client_args is a list of options
"$python" -m client --server "127.0.0.1:$port" --source "$video_name" --slo-ms "$slo" --fps "$fps" \
    --name "$my_host_id" --out "$log_path" ${client_args:-} &
client_pid=$!
status=0
wait "$client_pid" || status=$?
client_pid=
exit "$status"
