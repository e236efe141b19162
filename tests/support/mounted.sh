# mounted.sh - for the scripts of tests/mount: a varve mount of its own for one check. Sourced by bash.
#
#   each_store CHECK STORE...   runs CHECK at once for each of: s3 (versioned), unversioned, local; on a mount of its
#                               own, in a shell of its own
#
# CHECK sees MNT, STATE, URL, WORK (a directory outside the mount) and STORE, and ends the script by `die` or any
# command that fails. Set by tests/run: VARVE, VARVE_TEST_S3_ENDPOINT, AWS_*, MC, TMPDIR, which it removes in the end,
# with every mount beneath it.
set -euo pipefail

die() {
	echo "${STORE-}: $*" >&2
	[ -z "${LOG-}" ] || tail -n 20 "$LOG" >&2
	exit 1
}

# equal WHAT EXPECTED ACTUAL
equal() {
	[ "$2" = "$3" ] || die "$1: expected"$'\n'"$2"$'\n'"and got"$'\n'"$3"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Another S3 client: see s3.py.
s3() {
	"$here/s3.py" "$BUCKET" "$@"
}

new_store() {
	ROOT=$(mktemp -d "${TMPDIR:-/tmp}/script-XXXXXX")
	MNT=$ROOT/mnt STATE=$ROOT/state WORK=$ROOT/work LOG=$ROOT/varve.log
	mkdir "$MNT" "$WORK"
	if [ "$STORE" = local ]; then
		URL=file://$ROOT/store OPTIONS=create
		return
	fi
	BUCKET=script-$BASHPID
	URL=s3://$BUCKET OPTIONS=endpoint=$VARVE_TEST_S3_ENDPOINT
	case $STORE in
	unversioned) s3 make ;;
	*) s3 make versioned ;;
	esac
}

# mount_store [OPTIONS]
mount_store() {
	"$VARVE" mount "$URL" "$MNT" -o "state=$STATE,$OPTIONS${1:+,$1}" 2>>"$LOG" || die "varve mount failed"
}

unmount_store() {
	"$VARVE" umount "$MNT" >>"$LOG" 2>&1 || die "varve umount failed"
}

# Everything this machine knew is forgotten: what comes back comes from the store.
mount_anew() {
	unmount_store
	"$VARVE" fsck "$STATE" >>"$LOG" || die "fsck is not clean"
	rm -rf "$STATE"
	mount_store "$@"
}

one_store() {
	new_store
	mount_store
	"$1"
	unmount_store
	"$VARVE" fsck "$STATE" >>"$LOG" || die "fsck is not clean"
	rm -rf "$ROOT"
}

each_store() {
	local check=$1 pids=() failed=0
	for STORE in "${@:2}"; do
		one_store "$check" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || failed=1
	done
	exit "$failed"
}

# "path type mode uid gid mtime links target" of every entry beneath a directory, in order. The mode of a symbolic link
# says nothing, and a directory's mtime is checked where it was set.
facts() {
	(cd "$1" && find . -mindepth 1 -printf '%p %y %m %U %G %T@ %n %l\n' | sort)
}
