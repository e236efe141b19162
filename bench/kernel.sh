#!/bin/sh
# kernel.sh: what each agreement with the kernel (fs/kernel.h) is worth: the same work with all of them and with one of
# them taken back, in turns. Seconds, the best of ROUNDS; the store is a local directory, everything is in the cache.
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
	no-killpriv-v2 no-keep-cache no-timeouts no-clone-fd writeback-cache"}
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

# best NAME COMMAND: the seconds that COMMAND takes, if that is the least so far.
best() {
	name=$variant.$1
	shift
	began=$(date +%s%N)
	sh -c "$*" >/dev/null
	took=$(($(date +%s%N) - began))
	old=$(cat "$top/best.$name" 2>/dev/null || echo "$took")
	echo $((took < old ? took : old)) >"$top/best.$name"
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
	awk '{ printf " %.3f |", $1 / 1e9 }' "$top/best.$variant.$1"
}

echo "| | read $size MiB | again | write $size MiB | write 4 KiB x 20,000 | small, first | again | ls -l |"
echo "|---|---|---|---|---|---|---|---|"
for variant in $variants; do
	printf '| %s |' "$variant"
	for what in read reread write pieces small again list; do
		seconds "$what"
	done
	echo
done
