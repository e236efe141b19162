#!/usr/bin/env bash
# A file saved five times has five versions, each of which reads back byte for byte; on a versioned bucket another
# client sees the same object under the same key, with the same five version ids and the same bytes.
. "$(dirname "$0")/../support/mounted.sh"

mc() {
	HOME=$WORK MC_HOST_it="${VARVE_TEST_S3_ENDPOINT/:\/\//://$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY@}" \
		"$MC" --quiet --no-color "$@"
}

entries() {
	ls "$MNT/letters/.versions/report.doc"
}

# Oldest first, as in .versions. A bucket without versions has no ids.
ids_of_varve() {
	for entry in $(entries); do
		getfattr --absolute-names --only-values -n user.varve.version_id "$MNT/letters/.versions/report.doc/$entry" 2>/dev/null || :
		echo
	done
}

reads_back() {
	local i=0

	equal "versions" 5 "$(entries | wc -l)"
	for entry in $(entries); do
		i=$((i + 1))
		cmp "$WORK/save.$i" "$MNT/letters/.versions/report.doc/$entry" || die "version $i differs"
		equal "size of version $i" "$(stat -c %s "$WORK/save.$i")" "$(stat -c %s "$MNT/letters/.versions/report.doc/$entry")"
	done
	cmp "$WORK/save.5" "$MNT/letters/report.doc"
}

others_see_the_same() {
	local i=0 id

	equal "keys" letters/report.doc "$(mc find "it/$BUCKET/letters" | sed "s|^it/$BUCKET/||" | grep -v "/$")"
	mc ls --versions --json "it/$BUCKET/letters/report.doc" >"$WORK/listed"
	python3 - "$WORK/listed" >"$WORK/ids" <<'END'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
for row in sorted(rows, key=lambda row: row["versionOrdinal"]):
    print(row["versionId"])
END
	equal "version ids" "$(cat "$WORK/ids")" "$(ids_of_varve)"
	equal "the current id" "$(tail -n 1 "$WORK/ids")" "$(getfattr --absolute-names --only-values -n user.varve.version_id "$MNT/letters/report.doc")"
	while read -r id; do
		i=$((i + 1))
		mc cat --version-id "$id" "it/$BUCKET/letters/report.doc" | cmp - "$WORK/save.$i" || die "mc reads version $i differently"
		equal "mc stat of version $i" "$id" \
			"$(mc stat --json --version-id "$id" "it/$BUCKET/letters/report.doc" | grep -o '"versionID": *"[^"]*"' | cut -d'"' -f4)"
	done <"$WORK/ids"
}

check() {
	mkdir "$MNT/letters"
	for i in 1 2 3 4 5; do
		head -c "$((i * 70001))" /dev/urandom >"$WORK/save.$i"
		cp "$WORK/save.$i" "$MNT/letters/report.doc"
	done
	unmount_store
	mount_store
	reads_back
	[ "$STORE" != s3 ] || others_see_the_same
	mount_anew
	reads_back
	[ "$STORE" != s3 ] || others_see_the_same
}

each_store check s3 unversioned local
