#!/bin/sh
# rebuild.sh: the restore drill. A bucket holds FILES files with VERSIONS versions each; a catalog is rebuilt from it
# twice: from the listing alone, and from the snapshot and log that the first one left there. Each time every version's
# name, time, size and place is compared with what was put, and some are read through a mount. Filling takes long, so it
# is done once: the server's directory stays in $BUILD/bench/rebuild until somebody removes it.
#
# Environment: BUILD; FILES (100,000), VERSIONS (3); MINIO names the server's binary; OPTIONS more options of the mount.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${BUILD:-build}" && pwd)
varve=${VARVE:-$build/varve}
drill=$build/bench/drill
top=$build/bench/rebuild
files=${FILES:-100000} versions=${VERSIONS:-3}
bucket=drill-$files-$versions
AWS_ACCESS_KEY_ID=minioadmin AWS_SECRET_ACCESS_KEY=minioadmin
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY

mkdir -p "$top/mnt"
server=$top/server
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cleanup() {
	"$varve" umount "$top/mnt" >/dev/null 2>&1 || umount -l "$top/mnt" 2>/dev/null || :
	kill "$(cat "$server/minio.pid")" 2>/dev/null || :
	rm -rf "$top/state"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
MINIO=${MINIO:-$HOME/.cache/varve/bin/minio}
export MINIO
endpoint=$("$here/../tests/servers/minio.sh" "$server" "$port")

[ -e "$top/$bucket" ] || {
	"$drill" fill "s3://$bucket" "$endpoint" "$files" "$versions"
	: >"$top/$bucket"
}

rebuild() {
	rm -rf "$top/state"
	echo "$1:"
	"$drill" time "$varve" rebuild "s3://$bucket" --state "$top/state" -o "endpoint=$endpoint${OPTIONS:+,$OPTIONS}"
	"$varve" fsck "$top/state"
	"$drill" catalog "$top/state" "$files" "$versions"
	"$varve" mount "s3://$bucket" "$top/mnt" -o "endpoint=$endpoint,state=$top/state${OPTIONS:+,$OPTIONS}"
	"$drill" look "$top/mnt" "$files" "$versions"
	"$varve" umount "$top/mnt" >/dev/null
}

"$drill" forget "s3://$bucket" "$endpoint" .varve/ >/dev/null
rebuild "from the listing alone"
rebuild "from snapshot, log and listing"
