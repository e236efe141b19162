#!/bin/sh
# toxiproxy.sh DIR [API_PORT [NAME LISTEN_PORT UPSTREAM_HOST:PORT]]: starts toxiproxy, with one proxy when it is
# named, and prints the URL of its API; pid and log in DIR/toxiproxy.pid and .log.
#
# Environment: TOXIPROXY the binary.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
dir=$1 port=${2:-8474} bin=${TOXIPROXY:-toxiproxy-server}
mkdir -p "$dir"
setsid "$bin" -host 127.0.0.1 -port "$port" >"$dir/toxiproxy.log" 2>&1 </dev/null &
echo $! >"$dir/toxiproxy.pid"
wait_ready "$(cat "$dir/toxiproxy.pid")" 100 curl -sf "http://127.0.0.1:$port/version"
if [ $# -ge 5 ]; then
	curl -sf -d "{\"name\":\"$3\",\"listen\":\"127.0.0.1:$4\",\"upstream\":\"$5\"}" \
		"http://127.0.0.1:$port/proxies" >/dev/null
fi
echo "http://127.0.0.1:$port"
