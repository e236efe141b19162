#!/usr/bin/env bash
# sqlite keeps its promises in a mount: 1,000 transactions with fsync=disk, 50 with fsync=store, a rollback, and
# integrity after a rebuild from the store.
. "$(dirname "$0")/../support/mounted.sh"

transactions() {
	for i in $(seq "$1" "$2"); do
		echo "BEGIN; INSERT INTO t VALUES ($i, hex(randomblob(200))); UPDATE n SET n = n + 1; COMMIT;"
	done
}

check() {
	local db=$MNT/data.db many=1000 few=50

	[ "$STORE" = s3 ] || many=100 few=10
	unmount_store
	mount_store fsync=disk
	sqlite3 "$db" 'CREATE TABLE t (id INTEGER PRIMARY KEY, data); CREATE TABLE n (n); INSERT INTO n VALUES (0);'
	# With the journal made and removed for each, as is the default: so many versions of one key, which MinIO keeps in
	# one file that it rewrites each time. The rest with the journal kept open.
	transactions 1 "$((many / 5))" | sqlite3 "$db"
	{
		echo 'PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=TRUNCATE;'
		transactions "$((many / 5 + 1))" "$many"
	} | sqlite3 "$db" >/dev/null
	unmount_store
	mount_store fsync=store
	transactions "$((many + 1))" "$((many + few))" | sqlite3 "$db"
	sqlite3 "$db" 'BEGIN; DELETE FROM t; ROLLBACK;'
	equal integrity ok "$(sqlite3 "$db" 'PRAGMA integrity_check')"
	mount_anew
	equal "integrity after a rebuild" ok "$(sqlite3 "$db" 'PRAGMA integrity_check')"
	equal rows "$((many + few))|$((many + few))" "$(sqlite3 "$db" 'SELECT count(*), (SELECT n FROM n) FROM t')"
	sqlite3 "$db" 'PRAGMA journal_mode=WAL; INSERT INTO n VALUES (7); PRAGMA wal_checkpoint;' >/dev/null
	equal "integrity after WAL" ok "$(sqlite3 "$db" 'PRAGMA integrity_check')"
}

each_store check s3 unversioned local
