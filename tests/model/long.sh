#!/bin/sh
# long.sh - MODEL_OPS random operations (default 200,000) in runs of 2,000 with seeds of their own, on each kind of store in
# turn. The first run that goes wrong ends it.
set -eu
left=${MODEL_OPS:-200000}
while [ "$left" -gt 0 ]; do
	for store in file s3 file s3-unversioned file; do
		python3 "$VARVE_TEST_SOURCE/tests/model/model.py" --store "$store" --ops 2000
		left=$((left - 2000))
		[ "$left" -gt 0 ] || break
	done
done
