#!/usr/bin/env bash
# A tree copied in with cp -a is the same afterwards, and the same again on a machine that knows nothing but the store:
# content, modes, owners, times to the nanosecond, symbolic and hard links.
. "$(dirname "$0")/../support/mounted.sh"

# What /usr/include has not.
make_odd_ones() {
	mkdir -p "$1/odd/empty" "$1/odd/closed"
	echo content >"$1/odd/first"
	ln "$1/odd/first" "$1/odd/second"
	ln "$1/odd/first" "$1/odd/closed/third"
	ln -s first "$1/odd/link"
	ln -s /nowhere/at/all "$1/odd/dangling"
	ln -s ../odd "$1/odd/closed/up"
	: >"$1/odd/nothing"
	head -c 20000000 /dev/urandom >"$1/odd/large"
	echo 'name with spaces' >"$1/odd/ a  b "
	echo umlaut >"$1/odd/grün"
	chmod 0600 "$1/odd/first"
	chmod 0751 "$1/odd/nothing"
	chmod 0500 "$1/odd/closed"
	chown 12:34 "$1/odd/large"
	touch -d '1999-12-31 23:59:59.123456789' "$1/odd/large" "$1/odd/empty"
	touch -d '2038-01-19 03:14:08.000000001' "$1/odd/first"
	touch -h -d '2001-02-03 04:05:06.7' "$1/odd/link"
}

check() {
	local source=$WORK/source

	if [ "$STORE" = s3 ]; then
		cp -a /usr/include "$source"
	else
		mkdir "$source"
		cp -a /usr/include/linux "$source"
	fi
	make_odd_ones "$source"
	cp -a "$source" "$MNT/tree"
	facts "$source" >"$WORK/facts"
	diff -r --no-dereference "$source" "$MNT/tree" || die "the copy differs"
	facts "$MNT/tree" | diff "$WORK/facts" - || die "the copy's attributes differ"
	mount_anew
	facts "$MNT/tree" | diff "$WORK/facts" - || die "attributes differ after a rebuild from the store"
	diff -r --no-dereference "$source" "$MNT/tree" || die "the copy differs after a rebuild from the store"
	equal "one file behind three names" 1 "$(stat -c %i "$MNT"/tree/odd/{first,second,closed/third} | sort -u | wc -l)"
}

each_store check s3 unversioned local
