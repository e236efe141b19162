#!/usr/bin/env bash
# git works in a mount: clone, commit, repack and fsck, and the repository is whole after a rebuild from the store.
. "$(dirname "$0")/../support/mounted.sh"

export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.org GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.org

make_repository() {
	git init -q -b main "$1"
	for i in $(seq 40); do
		mkdir -p "$1/dir$((i % 5))"
		seq "$i" "$((i * 50))" >"$1/dir$((i % 5))/file$i"
		git -C "$1" add .
		git -C "$1" commit -q -m "change $i"
	done
}

check() {
	make_repository "$WORK/origin"
	git clone -q "$WORK/origin" "$MNT/clone"
	git -C "$MNT/clone" fsck --strict --no-progress 2>&1 | tee -a "$LOG" | grep . && die "git fsck complains"
	echo more >>"$MNT/clone/dir1/file1"
	git -C "$MNT/clone" commit -q -a -m 'a commit inside the mount'
	git -C "$MNT/clone" gc -q
	git -C "$MNT/clone" checkout -q -b other HEAD~10
	git -C "$MNT/clone" checkout -q main
	equal "git status" '' "$(git -C "$MNT/clone" status --porcelain)"
	mount_anew
	git -C "$MNT/clone" fsck --strict --no-progress || die "git fsck complains after a rebuild"
	equal "git status after a rebuild" '' "$(git -C "$MNT/clone" status --porcelain)"
	equal "commits" 41 "$(git -C "$MNT/clone" rev-list --count HEAD)"
}

each_store check s3 unversioned local
