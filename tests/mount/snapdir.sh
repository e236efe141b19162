#!/usr/bin/env bash
# Under which name directories have their past: .versions or another, hidden, listed or not there. What is called so
# itself, in the bucket or made when it was not the past's name, is shown under another name and works.
. "$(dirname "$0")/../support/mounted.sh"

remount() {
	unmount_store
	mount_store "$1"
}

# listed WHAT NAMES
listed() {
	equal "$1" "$2" "$(ls -A "$MNT" | tr '\n' ' ')"
}

other_puts() {
	if [ "$STORE" = local ]; then
		mkdir -p "$(dirname "$ROOT/store/$1")"
		echo "$2" >"$ROOT/store/$1"
	else
		s3 put "$1" <<<"$2"
	fi
}

check_visibility() {
	mkdir "$MNT/d"
	echo one >"$MNT/d/f"
	echo two >"$MNT/d/f"
	listed hidden "d "
	equal "by name" one "$(cat "$MNT/d/.versions/f/-2")"
	remount snapdir=visible
	listed visible ".versions d "
	equal "a tree sees the past once" 1 "$(find "$MNT/d" -name f -not -path '*/.versions/*' | wc -l)"
	equal "log of a visible one" 2 "$("$VARVE" log -r "$MNT/d" | grep -c write)"
	remount snapdir=off
	[ ! -e "$MNT/.versions" ] || die "off, and there is a past"
	getfattr -n user.varve.snapdir "$MNT" 2>/dev/null && die "off, and the past has a name"
	"$VARVE" log "$MNT/d/f" 2>"$WORK/err" && die "off, and there is a log"
	grep -q snapdir=off "$WORK/err" || die "$(cat "$WORK/err")"
}

# Programs make files of that name while it is off; then it is the past's again.
check_displaced() {
	echo mine >"$MNT/.versions"
	mkdir "$MNT/d/.versions"
	echo deep >"$MNT/d/.versions/x"
	remount snapdir=hidden
	listed "beside a file of that name" "%~=.versions d "
	equal "the past, after a listing" one "$(cat "$MNT/d/.versions/f/-2")"
	equal "the file" mine "$(cat "$MNT/%~=.versions")"
	equal "the directory" deep "$(cat "$MNT/d/%~=.versions/x")"
	echo more >>"$MNT/%~=.versions"
	mv "$MNT/%~=.versions" "$MNT/away"
	listed "moved away" "away d "
	equal "its past came along" mine "$(cat "$MNT/.versions/away/-2")"
	mv "$MNT/.versions" "$MNT/x" 2>"$WORK/err" && die "the past was moved"
	grep -q 'Read-only' "$WORK/err" || die "$(cat "$WORK/err")"
	rm "$MNT/d/%~=.versions/x"
	rmdir "$MNT/d/%~=.versions"
	rm "$MNT/away"
	equal "all gone" f "$(ls -A "$MNT/d")"
}

check_other_name() {
	unmount_store
	other_puts other/.versions/a "in the bucket"
	other_puts other/.past/b "also there"
	mount_store snapdir_name=.past
	"$VARVE" sweep "$MNT" >/dev/null
	equal "the attribute" .past "$(getfattr --absolute-names --only-values -n user.varve.snapdir "$MNT/d")"
	equal "by its name" one "$(cat "$MNT/d/.past/f/-2")"
	[ ! -e "$MNT/d/.versions" ] || die ".versions is there, too"
	(cd "$MNT" && ls -AR >/dev/null)
	equal "keys of both names" "in the bucket also there" "$(cat "$MNT"/other/%~*versions/a "$MNT/other/%~=.past/b" | xargs)"
	echo changed >"$MNT/other/%~=.past/b"
	equal "a past of its own" "also there" "$(cat "$MNT/other/%~=.past/.past/b/-2")"
	equal "in the directory's past" "%~.versions %~=.past" "$(ls -A "$MNT/other/.past" | xargs)"
	equal "at an instant" changed "$(cat "$MNT/other/.past/+at/$(date -u -d "+1 hour" +%FT%TZ)/%~=.past/b")"
	[ -f "$MNT/other/.past/+log" ] || die "no log"
	mkdir "$MNT/d/.versions"
	echo ours >"$MNT/d/.versions/f"
	equal ".versions is a name as others" ours "$(cat "$MNT/d/.versions/f")"
	rm -r "$MNT/d/.versions"
}

check_verbs() {
	local then

	sleep 0.2
	then=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)
	sleep 0.2
	echo three >"$MNT/d/f"
	equal log 3 "$("$VARVE" log "$MNT/d/f" | wc -l)"
	equal diff "-two +three" "$("$VARVE" diff "$MNT/d/f" | tail -n 2 | xargs)"
	equal "diff of a tree" "changed f" "$("$VARVE" diff "$MNT/d" "$then" | tr '\t' ' ')"
	"$VARVE" hold "$MNT/d/f" --version -3 >/dev/null
	equal held on "$(getfattr --absolute-names --only-values -n user.varve.legal_hold "$MNT/d/.past/f/-3")"
	"$VARVE" restore -r "$MNT/d" --at "$then" >/dev/null
	equal "restore -r" two "$(cat "$MNT/d/f")"
	rm -r "$MNT/d"
	"$VARVE" undelete -r "$MNT/d" >/dev/null
	equal undelete two "$(cat "$MNT/d/f")"
	"$VARVE" log -r "$MNT" | grep delete >/dev/null || die "log -r of the mount"
}

check() {
	check_visibility
	check_displaced
	check_other_name
	check_verbs
}

each_store check s3 local
