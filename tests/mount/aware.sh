#!/usr/bin/env bash
# Programs that walk a tree see the live files and nothing of the past, however deep that is: find, du, cp -a, rsync -aX,
# tar --xattrs, git. Nor do they carry attributes of varve's own away.
. "$(dirname "$0")/../support/mounted.sh"

export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.org GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.org

# Each file has twenty versions, names came and went, directories were moved and deleted.
make_history() {
	local i j

	mkdir -p "$1/sub/deep"
	for i in $(seq 20); do
		for j in a sub/b sub/deep/c; do
			echo "$j $i" >"$1/$j"
		done
		echo "$i" >"$1/gone$i"
		rm "$1/gone$i"
		mkdir "$1/dir$i"
		echo "$i" >"$1/dir$i/f"
		rm -r "$1/dir$i"
	done
	mv "$1/sub/deep" "$1/deep"
	ln "$1/a" "$1/hard"
	ln -s a "$1/link"
	setfattr -n user.colour -v blue "$1/a"
}

# no_trace WHAT DIRECTORY
no_trace() {
	equal "$1: names" "$(cat "$WORK/names")" "$(cd "$2" && find . -mindepth 1 | sort)"
	equal "$1: attributes of varve's own" '' "$(getfattr -hRd -m varve "$2" 2>/dev/null)"
	equal "$1: an attribute of the user's" blue "$(getfattr --only-values --absolute-names -n user.colour "$2/a")"
	equal "$1: hard links" "$(stat -c %i "$2/a")" "$(stat -c %i "$2/hard")"
	equal "$1: content" 'a 20' "$(cat "$2/a")"
}

check_walkers() {
	local bytes

	equal "versions of a file" 20 "$(ls "$MNT/t/.versions/a" | wc -l)"
	equal "find" "$(cat "$WORK/names")" "$(cd "$MNT/t" && find . -mindepth 1 | sort)"
	bytes=$(cat "$MNT"/t/{a,sub/b,deep/c} | wc -c)
	equal "du" "$bytes" "$(find "$MNT/t" -type f ! -name hard -printf '%s\n' | awk '{ n += $1 } END { print n }')"
	[ "$(du -s --block-size=1 "$MNT/t" | cut -f1)" -le $((16 * 4096)) ] || die "du counts the past: $(du -a "$MNT/t")"
	equal "grep -r" 1 "$(grep -rl 'deep/c' "$MNT/t" | wc -l)"
	equal "attributes that are listed" 'user.colour="blue"' "$(getfattr -d --absolute-names "$MNT/t/a" | grep user)"
}

check_copies() {
	cp -a "$MNT/t" "$WORK/cp"
	no_trace "cp -a" "$WORK/cp"
	rsync -aHX "$MNT/t/" "$WORK/rsync/"
	no_trace "rsync -aX" "$WORK/rsync"
	tar -C "$MNT/t" --xattrs --xattrs-include='*' -cf "$WORK/tar" .
	mkdir "$WORK/untarred"
	tar -C "$WORK/untarred" --xattrs --xattrs-include='*' -xf "$WORK/tar"
	no_trace "tar --xattrs" "$WORK/untarred"
	grep -aq user.varve "$WORK/tar" && die "tar took attributes of varve's own along"
	cp -a "$MNT/t" "$MNT/copy"
	no_trace "cp -a within" "$MNT/copy"
	equal "a copy's history" 1 "$(ls "$MNT/copy/.versions/a" | wc -l)"
	rm -r "$MNT/copy"
}

check_git() {
	git init -q -b main "$MNT/t"
	git -C "$MNT/t" add -A
	equal "git's files" "$(cat "$WORK/files")" "$(git -C "$MNT/t" ls-files | sort)"
	git -C "$MNT/t" commit -q -m all
	equal "git status" '' "$(git -C "$MNT/t" status --porcelain --ignored)"
	echo more >>"$MNT/t/a"
	equal "git status after a change" " M a" "$(git -C "$MNT/t" status --porcelain | grep -v hard)"
	git -C "$MNT/t" clean -qxdff
	equal "after git clean" "$(cat "$WORK/files")" "$(cd "$MNT/t" && find . -path ./.git -prune -o ! -type d -printf '%P\n' | sort)"
}

check() {
	make_history "$MNT/t"
	(cd "$MNT/t" && ls -AR >/dev/null)
	printf '%s\n' ./a ./deep ./deep/c ./hard ./link ./sub ./sub/b >"$WORK/names"
	printf '%s\n' a deep/c hard link sub/b >"$WORK/files"
	check_walkers
	check_copies
	mount_anew
	check_walkers
	check_git
}

each_store check s3 unversioned local
