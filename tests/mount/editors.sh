#!/usr/bin/env bash
# How editors and dd save: by rename, by backup and rename, in place; each save is one version of the name.
. "$(dirname "$0")/../support/mounted.sh"

versions_of() {
	ls "$MNT/.versions/$1" | wc -l
}

save_by_rename() {
	for i in 1 2 3; do
		printf 'save %s\n' "$i" >"$MNT/.report.txt.tmp"
		mv "$MNT/.report.txt.tmp" "$MNT/report.txt"
	done
	equal "saved by rename" 'save 3' "$(cat "$MNT/report.txt")"
	equal "versions by rename" 3 "$(versions_of report.txt)"
	equal "the past" $'save 1\nsave 2\nsave 3' "$(cat "$MNT"/.versions/report.txt/*)"
}

# What vim does with backupcopy=no: the old file becomes the backup, a new one takes the name.
save_by_backup() {
	echo one >"$MNT/notes"
	mv "$MNT/notes" "$MNT/notes~"
	echo two >"$MNT/notes"
	rm "$MNT/notes~"
	equal "saved by backup" two "$(cat "$MNT/notes")"
	equal "versions by backup" $'one\ntwo' "$(cat "$MNT"/.versions/notes/*)"
}

save_by_vim() {
	printf 'first\n' >"$MNT/text"
	for i in 1 2; do
		vim -u NONE -es -c 'set backup writebackup swapfile backupcopy=no' -c "normal Goline $i" -c 'wq' "$MNT/text" \
			</dev/null || die "vim fails"
	done
	vim -u NONE -es -c 'set writebackup backupcopy=yes' -c 'normal Goline 3' -c 'wq' "$MNT/text" </dev/null
	equal "saved by vim" $'first\nline 1\nline 2\nline 3' "$(cat "$MNT/text")"
	equal "versions by vim" 4 "$(versions_of text)"
	equal "the second by vim" $'first\nline 1' "$(cat "$MNT/.versions/text/-3")"
	equal "no swap file is left" '' "$(find "$MNT" -name '.*.sw?')"
}

dd_with_fsync() {
	head -c 3000000 /dev/urandom >"$WORK/random"
	dd if="$WORK/random" of="$MNT/dd" bs=64k conv=fsync status=none
	equal "stored when dd returns" stored "$(getfattr --absolute-names --only-values -n user.varve.state "$MNT/dd")"
	cmp "$WORK/random" "$MNT/dd"
	dd if=/dev/zero of="$MNT/dd" bs=4096 seek=100 count=3 conv=notrunc,fsync status=none
	dd if=/dev/zero of="$WORK/random" bs=4096 seek=100 count=3 conv=notrunc status=none
	cmp "$WORK/random" "$MNT/dd"
	dd if="$WORK/random" of="$MNT/dd" bs=1M oflag=append conv=notrunc status=none
	cat "$WORK/random" "$WORK/random" | cmp - "$MNT/dd"
	sync -f "$MNT/dd"
}

check() {
	save_by_rename
	save_by_backup
	save_by_vim
	dd_with_fsync
	mount_anew
	equal "after a rebuild" 'save 3' "$(cat "$MNT/report.txt")"
	equal "the past after a rebuild" $'save 1\nsave 2\nsave 3' "$(cat "$MNT"/.versions/report.txt/*)"
	cat "$WORK/random" "$WORK/random" | cmp - "$MNT/dd"
}

each_store check s3 unversioned local
