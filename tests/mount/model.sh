#!/bin/sh
# model.sh - some hundred random operations on each kind of store, against the model. `make check-model` runs many more.
set -eu
for store in file s3 s3-unversioned; do
	python3 "$VARVE_TEST_SOURCE/tests/model/model.py" --store "$store" --ops "${MODEL_OPS:-300}" --seed "${MODEL_SEED:-7}"
done
