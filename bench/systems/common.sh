# common.sh: sourced by every system.
#
# bench.py gives MNT, CACHE, BUCKET, ENDPOINT, ACCESS, SECRET, and runs `SYSTEM VERB`:
#   mount    returns when MNT is ready
#   umount   unmounts, once what the system keeps back is on its way; bench.py then waits for the daemon's end, and only
#            that counts as stored
#   reset    forgets what is cached of the content; and of the metadata, unless the system cannot do without
#   wipe     forgets everything; the bucket is empty and new already
#   version  one line
set -eu

wait_mounted() {
	for _ in $(seq 500); do
		mountpoint -q "$MNT" && return 0
		sleep 0.02
	done
	echo "not mounted after 10 s"
	return 1
}

unmount() {
	if mountpoint -q "$MNT"; then fusermount3 -u "$MNT"; fi
}

drop_cache() {
	rm -rf "$CACHE"
	mkdir -p "$CACHE"
}
