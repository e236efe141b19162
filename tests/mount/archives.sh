#!/usr/bin/env bash
# tar in and out, rsync twice (the second time nothing moves), rsync with extended attributes.
. "$(dirname "$0")/../support/mounted.sh"

check_tar() {
	tar -C "$WORK" --format=posix -cf "$WORK/in.tar" source
	tar -C "$MNT" -xpf "$WORK/in.tar"
	facts "$MNT/source" | diff "$WORK/facts" - || die "tar: attributes differ"
	tar -C "$MNT" --format=posix -cf "$WORK/out.tar" source
	mkdir "$WORK/back"
	tar -C "$WORK/back" -xpf "$WORK/out.tar"
	diff -r --no-dereference "$WORK/source" "$WORK/back/source" || die "tar: content differs"
	facts "$WORK/back/source" | diff "$WORK/facts" - || die "tar: attributes differ after the way back"
	tar -C "$MNT" -df "$WORK/in.tar" || die "tar --diff finds differences"
	tar -C "$WORK" --format=posix --pax-option=delete=atime,delete=ctime -cf "$MNT/inside.tar" source
	tar -C "$WORK" --format=posix --pax-option=delete=atime,delete=ctime -cf "$WORK/in.tar" source
	cmp "$WORK/in.tar" "$MNT/inside.tar"
}

nothing_moves() {
	rsync "$@" --stats "$WORK/source/" "$MNT/rsynced/" >"$WORK/stats"
	grep -q '^Number of regular files transferred: 0$' "$WORK/stats" || die "rsync $* moves again: $(cat "$WORK/stats")"
	equal "rsync $* changes attributes again" '' "$(rsync "$@" -n -i "$WORK/source/" "$MNT/rsynced/")"
}

check_rsync() {
	rsync -aH "$WORK/source/" "$MNT/rsynced/"
	nothing_moves -aH
	unmount_store
	mount_store
	nothing_moves -aH
	echo changed >>"$WORK/source/tables/a1"
	rsync -aH --inplace "$WORK/source/" "$MNT/rsynced/"
	diff -r --no-dereference "$WORK/source" "$MNT/rsynced" || die "rsync --inplace: content differs"
}

check_xattrs() {
	setfattr -n user.colour -v blue "$WORK/source/a"
	setfattr -n user.binary -v 0x00ff00 "$WORK/source/tables"
	rsync -aHX "$WORK/source/" "$MNT/rsynced/"
	nothing_moves -aHX
	mount_anew
	nothing_moves -aHX
	equal xattr blue "$(getfattr --absolute-names --only-values -n user.colour "$MNT/rsynced/a")"
	mkdir "$WORK/copied"
	rsync -aHX "$MNT/rsynced/" "$WORK/copied/"
	equal "attributes of varve's own are not copied" '' "$(getfattr -dR -m varve "$WORK/copied" 2>/dev/null)"
}

check() {
	mkdir -p "$WORK/source/tables"
	cp -a /usr/include/linux/netfilter "$WORK/source"
	echo a >"$WORK/source/a"
	ln "$WORK/source/a" "$WORK/source/b"
	ln -s a "$WORK/source/c"
	for i in $(seq 60); do
		head -c "$((i * 997))" /dev/urandom >"$WORK/source/tables/a$i"
	done
	head -c 9000000 /dev/urandom >"$WORK/source/large"
	facts "$WORK/source" >"$WORK/facts"
	check_tar
	check_rsync
	check_xattrs
}

each_store check s3 unversioned local
