#!/usr/bin/env bash
# kernel.sh: what each agreement with the kernel (fs/kernel.h) is worth: the same work with all of them and with one of
# them taken back, in turns. Wall seconds, and seconds of processor time (the program's and varve's together, what goes
# on in the background included), each the best of ROUNDS: on a busy machine only the latter says something. The store
# is a local directory, everything is in the cache.
#
#	write, read      SIZE MiB in pieces of 1 MiB; the read with the mount fresh, so that no page is in its page cache
#	write 4 KiB      20,000 of them into one file
#	small            1,000 files of 8 KiB: read with a fresh mount, and once more
#	ls -l            1,000 files, with a fresh mount
set -eu

build=$(cd "${BUILD:-build}" && pwd)
varve=${VARVE:-$build/varve}
rounds=${ROUNDS:-3}
size=${SIZE:-512}
variants=${VARIANTS:-"all no-passthrough no-splice no-big-requests no-readahead no-readdirplus no-parallel-dirops
	no-killpriv-v2 no-keep-cache no-clone-fd no-uncached-writes writeback-cache"}
top=$(mktemp -d "${TMPDIR:-/tmp}/kernel-XXXXXX")

cleanup() {
	cd /
	"$varve" umount "$top/mnt" >/dev/null 2>&1 || umount -l "$top/mnt" 2>/dev/null || :
	rm -rf "$top"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

start() {
	VARVE_KERNEL=$1 "$varve" mount "file://$top/store" "$top/mnt" -o "create,state=$top/state"
}

stop() {
	"$varve" umount "$top/mnt" >/dev/null 2>&1
}

least() {
	local old
	old=$(cat "$1" 2>/dev/null || echo "$2")
	echo $(($2 < old ? $2 : old)) >"$1"
}

# Hundredths of a second that varve has used.
used() {
	awk '{ print $14 + $15 }' "/proc/$pid/stat"
}

# best NAME COMMAND: the least wall and processor time so far, in milliseconds.
best() {
	local name=$variant.$1 before real user system TIMEFORMAT='%R %U %S'
	shift
	before=$(used)
	read -r real user system < <({ time sh -c "$*" >/dev/null 2>&1; } 2>&1)
	least "$top/wall.$name" $((10#${real/./}))
	least "$top/cpu.$name" $((10#${user/./} + 10#${system/./} + ($(used) - before) * 10))
}

mkdir "$top/mnt"
cd "$top"
start all
mkdir mnt/small
i=0
while [ "$i" -lt 1000 ]; do
	head -c 8192 /dev/zero >"mnt/small/$i"
	i=$((i + 1))
done
dd if=/dev/zero of=mnt/big bs=1M count="$size" 2>/dev/null
stop

round=0
while [ "$round" -lt "$rounds" ]; do
	for variant in $variants; do
		start "$variant"
		pid=$("$varve" status --json "$top/mnt" | sed 's/.*"pid": *\([0-9]*\).*/\1/')
		best list "ls -l mnt/small"
		best small "cat mnt/small/*"
		best again "cat mnt/small/*"
		best read "dd if=mnt/big of=/dev/null bs=1M"
		best reread "dd if=mnt/big of=/dev/null bs=1M"
		best pieces "dd if=/dev/zero of=mnt/pieces bs=4k count=20000"
		best write "dd if=/dev/zero of=mnt/written bs=1M count=$size"
		rm mnt/written mnt/pieces
		stop
	done
	round=$((round + 1))
done

seconds() {
	printf ' %d.%03d / %d.%03d |' $(($1 / 1000)) $(($1 % 1000)) $(($2 / 1000)) $(($2 % 1000))
}

echo "| | read $size MiB | again | write $size MiB | write 4 KiB x 20,000 | small, first | again | ls -l |"
echo "|---|---|---|---|---|---|---|---|"
for variant in $variants; do
	printf '| %s |' "$variant"
	for what in read reread write pieces small again list; do
		seconds "$(cat "$top/wall.$variant.$what")" "$(cat "$top/cpu.$variant.$what")"
	done
	echo
done
