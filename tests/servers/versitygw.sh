#!/bin/sh
# versitygw.sh DIR [PORT]: starts a Versity gateway over a directory, with versions, and prints its endpoint;
# pid and log in DIR/versitygw.pid and .log. The file system of DIR must take user.* xattrs.
#
# Environment: VERSITYGW the binary; ROOT_ACCESS_KEY (vgwadmin), ROOT_SECRET_KEY (vgwsecret).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
dir=$1 port=${2:-7070} bin=${VERSITYGW:-versitygw}
mkdir -p "$dir/root" "$dir/versions" "$dir/iam"
ROOT_ACCESS_KEY=${ROOT_ACCESS_KEY:-vgwadmin} ROOT_SECRET_KEY=${ROOT_SECRET_KEY:-vgwsecret} \
	setsid "$bin" --port "127.0.0.1:$port" --iam-dir "$dir/iam" --health /health --quiet \
	posix --versioning-dir "$dir/versions" "$dir/root" >"$dir/versitygw.log" 2>&1 </dev/null &
echo $! >"$dir/versitygw.pid"
wait_ready "$(cat "$dir/versitygw.pid")" 100 curl -sf "http://127.0.0.1:$port/health"
echo "http://127.0.0.1:$port"
