#!/bin/sh
# ops.sh [OP]: what varve's calls cost beside those of a filesystem that does nothing (tools/bench/null_fs.c), on a warm
# path: everything is known and cached, the store is a local directory.
set -eu

build=$(cd "${BUILD:-build}" && pwd)
varve=${VARVE:-$build/varve}
top=$(mktemp -d "${TMPDIR:-/tmp}/ops-XXXXXX")

cleanup() {
	cd /
	"$varve" umount "$top/varve" >/dev/null 2>&1 || umount -l "$top/varve" 2>/dev/null || :
	umount "$top/null" 2>/dev/null || umount -l "$top/null" 2>/dev/null || :
	rm -rf "$top"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

mkdir "$top/null" "$top/varve"
"$build/bench/null_fs" "$top/null" &
"$varve" mount "file://$top/store" "$top/varve" -o "create,state=$top/state"
mkdir "$top/varve/d"
(
	cd "$top/varve/d"
	i=0
	while [ "$i" -lt 1000 ]; do
		head -c 4096 /dev/zero >"$(printf 'f%04d' "$i")"
		i=$((i + 1))
	done
)
head -c 4096 /dev/zero >"$top/varve/f"
OPS_SETTLE="while [ \"\$('$varve' status --json '$top/varve' | sed 's/.*\"pending\": *\([0-9]*\).*/\1/')\" != 0 ]; do sleep 0.05; done"
export OPS_SETTLE
sh -c "$OPS_SETTLE"
"$build/bench/ops" "$top/null" "$top/varve" "$@"
