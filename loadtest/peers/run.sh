#!/bin/sh
# Runs floor, nginx, Varnish and Weir's edge on one core each in turn, origin and viewers on another, and prints one
# table with ratios to the floor. Peers that are not installed are left out, loudly (Debian: apt-get install nginx varnish).
#
#   loadtest/peers/run.sh [viewers] [streams] [seconds] [rounds]
#   loadtest/peers/run.sh all [seconds] [rounds]      200, 1000, 2000, 4000 viewers of one stream, 1000 over 50 streams
#
# PROTOCOL (default: h1) is what the viewers speak. h2 is under TLS 1.3, h3 over QUIC, each with a certificate made for the run; whoever
# can't is left out: the floor and Varnish speak neither, nginx of Debian 12 no h3.
#
# Needs taskset, curl, two cores, and release builds: WEIR_LOADTEST and WEIR_EDGE name the programs (default:
# target/release/…). SERVER_CORE and LOAD_CORE choose the cores, PEERS (default: "nginx varnish weir") what is compared,
# HTML and JSON name files for reports. Everything listens on 127.0.0.1, ports PORT to PORT+6 (default 28080).
set -eu
case ${1:-} in
    all)
        seconds=${2:-10} rounds=${3:-3}
        for row in "200 1" "1000 1" "2000 1" "4000 1" "1000 50"; do
            # shellcheck disable=SC2086
            set -- $row
            printf '\n%s viewers, %s streams\n' "$1" "$2"
            # What breaks under a peer's load is in its table: the other rows are wanted all the same.
            "$0" "$1" "$2" "$seconds" "$rounds" || echo "(rules or limits broke in this row)"
        done
        exit 0
        ;;
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d'
        exit 0
        ;;
esac
viewers=${1:-1000} streams=${2:-1} seconds=${3:-10} rounds=${4:-3}
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
loadtest=${WEIR_LOADTEST:-$target/release/weir-loadtest}
edge=${WEIR_EDGE:-$target/release/weir-edge}
server_core=${SERVER_CORE:-0} load_core=${LOAD_CORE:-1} port=${PORT:-28080} peers=${PEERS:-nginx varnish weir}
protocol=${PROTOCOL:-h1} scheme=https
shape="--streams $streams --bitrate 2500000 --part 200ms --segment 1s --window 20s"

fail() {
    echo "$1" >&2
    exit 2
}
for number in "$viewers" "$streams" "$seconds" "$rounds" "$server_core" "$load_core" "$port"; do
    case $number in '' | *[!0-9]*) fail "'$number' is no number; usage: $0 [viewers] [streams] [seconds] [rounds]" ;; esac
done
arrival=4s warmup=6s
case $protocol in
    h1) scheme=http arrival=2s warmup=3s ;;
    # Handshakes are not what is measured.
    h2 | h3) ;;
    *) fail "PROTOCOL is h1, h2 or h3, not '$protocol'" ;;
esac
for tool in taskset curl; do
    command -v "$tool" >/dev/null || fail "$tool is not installed (Debian: apt-get install util-linux curl)"
done
[ -x "$loadtest" ] || fail "no $loadtest: cargo build --release -p weir-edge -p weir-loadtest"
for core in "$server_core" "$load_core"; do
    taskset -c "$core" true 2>/dev/null || fail "there is no core $core here: choose with SERVER_CORE and LOAD_CORE"
done
[ "$server_core" != "$load_core" ] || echo "WARNING: server and viewers on the same core: this measures the scheduler" >&2
for offset in 0 1 2 3 4 5 6; do
    if curl -s -o /dev/null --max-time 1 "http://127.0.0.1:$((port + offset))/"; then
        fail "something listens on port $((port + offset)) already: choose others with PORT"
    fi
done
# Each viewer holds two connections, at the harness and at the server; Varnish takes two for each of its own.
ulimit -n "$(ulimit -Hn)"
files=$(ulimit -n)
if [ "$files" != unlimited ] && [ "$files" -lt $((viewers * 3 + 1000)) ]; then
    fail "$files open files are too few for $viewers viewers: raise the hard limit (ulimit -Hn)"
fi
busy=$(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo 0)
case $busy in 0.[0-4]*) ;; *) echo "WARNING: load average $busy: other programs disturb these figures" >&2 ;; esac
echo "$(uname -sr), $(grep -c ^processor /proc/cpuinfo) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), TCP $(cat /proc/sys/net/ipv4/tcp_congestion_control 2>/dev/null || echo '?'), load average $busy"
wants() {
    case " $peers " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}
speaks() { # name, protocols: whether it speaks what the viewers do
    case " $2 " in *" $protocol "*) return 0 ;; esac
    echo "LEFT OUT: $1 does not speak $protocol" >&2
    return 1
}

# A memory file system where there is one, so that nginx's cache never meets a disk.
dir=$(mktemp -d /dev/shm/weir-peers.XXXXXX 2>/dev/null || mktemp -d)
pids=
finish() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT INT TERM

fill() { # template, port: the peer's own configuration
    sed -e "s|@PORT@|$2|g" -e "s|@ADMIN@|$((port + 5))|g" -e "s|@TLS@|$((port + 6))|g" -e "s|@ORIGIN@|127.0.0.1:$port|g" \
        -e "s|@SSL@|$ssl|g" -e "s|@CERTIFICATE@|$certificate|g" -e "s|@ORIGIN_HOST@|127.0.0.1|g" -e "s|@ORIGIN_PORT@|$port|g" -e "s|@DIR@|$dir|g" "$here/$1"
}
answers() { # port, scheme: whether something takes requests there, within 10 s
    for _ in $(seq 100); do
        if curl -fskS -o /dev/null "${2:-http}://127.0.0.1:$1/app/s0/index.m3u8" 2>/dev/null; then return 0; fi
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
servers=
if speaks "the floor" h1; then
    # shellcheck disable=SC2086
    start "$server_core" "$loadtest" floor --listen "127.0.0.1:$((port + 1))" $shape
    answers "$((port + 1))"
    servers="floor,$pid=http://127.0.0.1:$((port + 1))/app/s{}/index.m3u8"
fi

ssl='' certificate=''
if ! wants nginx || ! speaks nginx "h1 h2"; then :
elif [ "$protocol" = h2 ] && ! command -v openssl >/dev/null; then
    echo "LEFT OUT: nginx needs a certificate, and openssl is not installed" >&2
elif command -v nginx >/dev/null; then
    if [ "$protocol" = h2 ]; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
            -keyout "$dir/key.pem" -out "$dir/certificate.pem" 2>/dev/null
        ssl='ssl http2'
        certificate="ssl_certificate $dir/certificate.pem; ssl_certificate_key $dir/key.pem; ssl_protocols TLSv1.3;"
    fi
    fill nginx.conf "$((port + 2))" >"$dir/nginx.conf"
    # Workers give up root's rights: the cache must be open to them.
    chmod 777 "$dir"
    start "$server_core" nginx -c "$dir/nginx.conf" -e "$dir/nginx-error.log"
    answers "$((port + 2))" "$scheme"
    servers="$servers nginx,$pid=$scheme://127.0.0.1:$((port + 2))/app/s{}/index.m3u8"
else
    echo "LEFT OUT: nginx is not installed" >&2
fi
if ! wants varnish || ! speaks Varnish h1; then :
elif command -v varnishd >/dev/null; then
    fill varnish.vcl 0 >"$dir/varnish.vcl"
    start "$server_core" varnishd -F -n "$dir/varnish" -a "127.0.0.1:$((port + 3))" -f "$dir/varnish.vcl" \
        -s malloc,512m -p thread_pools=1 -p thread_pool_min=200 -p thread_pool_max=5000 -p listen_depth=8192 \
        -p timeout_idle=75
    answers "$((port + 3))"
    servers="$servers varnish,$pid=http://127.0.0.1:$((port + 3))/app/s{}/index.m3u8"
else
    echo "LEFT OUT: varnishd is not installed" >&2
fi
if ! wants weir; then :
elif [ -x "$edge" ]; then
    fill edge.yaml "$((port + 4))" >"$dir/edge.yaml"
    start "$server_core" "$edge" --config "$dir/edge.yaml"
    answers "$((port + 4))"
    public=$((port + 4))
    [ "$scheme" = http ] || public=$((port + 6))
    servers="$servers weir,$pid=$scheme://127.0.0.1:$public/app/s{}/index.m3u8"
else
    echo "LEFT OUT: no $edge" >&2
fi

# Each viewer keeps the next playlist and the hinted part requested, as Safari does.
# shellcheck disable=SC2086
taskset -c "$load_core" "$loadtest" compare $servers --protocol "$protocol" --insecure --viewers "$viewers" --streams "$streams" --threads 1 \
    --duration "${seconds}s" --warmup "$warmup" --arrival "linear:$arrival" --safari 100 --verify-every 16 --repeat "$rounds" \
    --origin-metrics "http://127.0.0.1:$port/metrics" ${HTML:+--html "$HTML"} ${JSON:+--json "$JSON"}
