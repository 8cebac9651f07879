#!/usr/bin/env bash
# Streams from this machine to a server, as a Jellyfish client machine does; 'tail -f logs/client/host_0/frame_stats.csv' shows it.
#   server_ip=10.0.0.1 ./run.sh                             one client with the synthetic scene
#   server_ip=10.0.0.1 num_clients=4 slo=75,100 fps=15,25 video=traffic.mp4 ./run.sh
# Any other option of 'moonjelly client' may follow. Needs no torch. SIGTERM (pkill run.sh) or Ctrl-C stops all clients.
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../interpreter.sh"
server_ip=${server_ip:-127.0.0.1}
server_port=${server_port:-10001}
num_clients=${num_clients:-1}
slo=${slo:-100}
fps=${fps:-15}
video=${video:-synthetic}
out=${out:-$root}/logs/client

[ "$num_clients" -gt 1 ] || out=$out/host_0
exec "$python" -m cli.as_script run.sh client --server "$server_ip:$server_port" --source "$video" --clients "$num_clients" \
    --slo-ms "$slo" --fps "$fps" --out "$out" "$@"
