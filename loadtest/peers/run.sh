#!/bin/sh
# Runs floor, nginx, Varnish and Weir's edge on one core each in turn, origin and viewers on another, and prints one
# table. Peers that are not installed are left out, loudly (Debian: apt-get install nginx varnish).
#
#   loadtest/peers/run.sh [viewers] [streams] [seconds] [rounds]
#
# Needs release builds: WEIR_LOADTEST and WEIR_EDGE name the programs (default: target/release/…). SERVER_CORE and
# LOAD_CORE choose the cores. Everything listens on 127.0.0.1, ports PORT to PORT+6 (default 28080).
set -eu
viewers=${1:-1000} streams=${2:-1} seconds=${3:-10} rounds=${4:-3}
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
loadtest=${WEIR_LOADTEST:-$target/release/weir-loadtest}
edge=${WEIR_EDGE:-$target/release/weir-edge}
server_core=${SERVER_CORE:-0} load_core=${LOAD_CORE:-1} port=${PORT:-28080}
shape="--streams $streams --bitrate 2500000 --part 200ms --segment 1s --window 20s"

[ -x "$loadtest" ] || { echo "no $loadtest: cargo build --release -p weir-loadtest" >&2; exit 2; }
# A memory file system where there is one, so that nginx's cache never meets a disk.
dir=$(mktemp -d /dev/shm/weir-peers.XXXXXX 2>/dev/null || mktemp -d)
pids=
finish() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT INT TERM
ulimit -n "$(ulimit -Hn)"

fill() { # template, port: the peer's own configuration
    sed -e "s|@PORT@|$2|g" -e "s|@ADMIN@|$((port + 5))|g" -e "s|@TLS@|$((port + 6))|g" -e "s|@ORIGIN@|127.0.0.1:$port|g" \
        -e "s|@ORIGIN_HOST@|127.0.0.1|g" -e "s|@ORIGIN_PORT@|$port|g" -e "s|@DIR@|$dir|g" "$here/$1"
}
answers() { # port: whether something takes requests there, within 10 s
    for _ in $(seq 100); do
        if curl -fsS -o /dev/null "http://127.0.0.1:$1/app/s0/index.m3u8" 2>/dev/null; then return 0; fi
        sleep 0.1
    done
    echo "nothing answers on port $1; what the servers said:" >&2
    tail -n 3 "$dir"/out.* >&2
    return 1
}
start() { # core, program and arguments; sets $pid
    core=$1
    shift
    taskset -c "$core" "$@" >"$dir/out.$(basename "$1").$core" 2>&1 &
    pid=$!
    pids="$pids $pid"
}

# shellcheck disable=SC2086
start "$load_core" "$loadtest" origin --listen "127.0.0.1:$port" $shape
answers "$port"
# shellcheck disable=SC2086
start "$server_core" "$loadtest" floor --listen "127.0.0.1:$((port + 1))" $shape
answers "$((port + 1))"
servers="floor,$pid=http://127.0.0.1:$((port + 1))/app/s{}/index.m3u8"

if command -v nginx >/dev/null; then
    fill nginx.conf "$((port + 2))" >"$dir/nginx.conf"
    # Workers give up root's rights: the cache must be open to them.
    chmod 777 "$dir"
    start "$server_core" nginx -c "$dir/nginx.conf" -e "$dir/nginx-error.log"
    answers "$((port + 2))"
    servers="$servers nginx,$pid=http://127.0.0.1:$((port + 2))/app/s{}/index.m3u8"
else
    echo "LEFT OUT: nginx is not installed" >&2
fi
if command -v varnishd >/dev/null; then
    fill varnish.vcl 0 >"$dir/varnish.vcl"
    start "$server_core" varnishd -F -n "$dir/varnish" -a "127.0.0.1:$((port + 3))" -f "$dir/varnish.vcl" \
        -s malloc,512m -p thread_pools=1 -p thread_pool_min=200 -p thread_pool_max=5000 -p listen_depth=8192 \
        -p timeout_idle=75
    answers "$((port + 3))"
    servers="$servers varnish,$pid=http://127.0.0.1:$((port + 3))/app/s{}/index.m3u8"
else
    echo "LEFT OUT: varnishd is not installed" >&2
fi
if [ -x "$edge" ]; then
    fill edge.yaml "$((port + 4))" >"$dir/edge.yaml"
    start "$server_core" "$edge" --config "$dir/edge.yaml"
    answers "$((port + 4))"
    servers="$servers weir,$pid=http://127.0.0.1:$((port + 4))/app/s{}/index.m3u8"
else
    echo "LEFT OUT: no $edge" >&2
fi

# Each viewer keeps the next playlist and the hinted part requested, as Safari does.
# shellcheck disable=SC2086
taskset -c "$load_core" "$loadtest" compare $servers --viewers "$viewers" --streams "$streams" --threads 1 \
    --duration "${seconds}s" --warmup 3s --arrival linear:2s --safari 100 --verify-every 16 --repeat "$rounds" \
    --origin-metrics "http://127.0.0.1:$port/metrics" ${HTML:+--html "$HTML"} ${JSON:+--json "$JSON"}
