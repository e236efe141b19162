#!/bin/bash
# Much of everything costs no more than little of it, within one run: files, names in one directory, versions of one
# file, bytes in one file. The sizes are small here; `make bench-scale` has the large ones.
set -eu
"${VARVE%/varve}/bench/scale" "$VARVE" "$TMPDIR/scale" --quick >/dev/null
rm -rf "$TMPDIR/scale"
