#!/usr/bin/env bash
# "Previous Versions" through Samba, with Debian's shadow_copy2 and the two lines that point it at .versions/+gmt: a
# client lists the restore points of a file and fetches it as it was, also in a directory and after it was deleted.
. "$(dirname "$0")/../support/mounted.sh"

PATH=$PATH:/usr/sbin

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_samba() {
	SMB=$ROOT/samba
	mkdir -p "$SMB/private"
	PORT=$(free_port)
	cat >"$SMB/smb.conf" <<END
[global]
	server role = standalone server
	smb ports = $PORT
	interfaces = 127.0.0.1
	bind interfaces only = yes
	disable netbios = yes
	load printers = no
	map to guest = Bad User
	guest account = $(id -un)
	private dir = $SMB/private
	lock directory = $SMB
	state directory = $SMB
	cache directory = $SMB
	pid directory = $SMB
	ncalrpc dir = $SMB/ncalrpc
	log file = $SMB/log
	include system krb5 conf = no
[share]
	path = $MNT
	guest ok = yes
	read only = no
	vfs objects = shadow_copy2
	shadow:snapdir = .versions/+gmt
	shadow:snapdirseverywhere = yes
END
	smbd --foreground --configfile="$SMB/smb.conf" </dev/null >"$SMB/out" 2>&1 &
	SMBD=$!
	for _ in $(seq 100); do
		smb ls >/dev/null 2>&1 && return
		kill -0 "$SMBD" 2>/dev/null || break
		sleep 0.1
	done
	die "smbd does not start: $(cat "$SMB/out" "$SMB"/log* 2>/dev/null | tail -n 20)"
}

# Its children are in a group of their own, and may still be in the mount when it has ended.
stop_samba() {
	kill "$SMBD"
	wait "$SMBD" || true
	for _ in $(seq 100); do
		pgrep -r R,S,D -g "$SMBD" >/dev/null || return 0
		sleep 0.1
	done
}

# smb COMMAND
smb() {
	smbclient --configfile="$SMB/smb.conf" -N -p "$PORT" //127.0.0.1/share -c "$1" 2>&1
}

# now: the second that has just ended, as Samba names it.
now() {
	sleep 1.2
	date -u -d '-1 second' +@GMT-%Y.%m.%d-%H.%M.%S
}

# fetched TIME FILE
fetched() {
	smb "get \"$1/$2\" $WORK/fetched" >"$WORK/smb" || die "get $1/$2: $(cat "$WORK/smb")"
	cat "$WORK/fetched"
}

points_of() {
	smb "allinfo \"$1\"" | grep -o '^@GMT-[0-9.-]*'
}

check() {
	local first second

	mkdir -p "$MNT/dir/sub"
	echo one >"$MNT/report.txt"
	echo deep one >"$MNT/dir/sub/a file.txt"
	first=$(now)
	echo two, longer >"$MNT/report.txt"
	echo deep two >"$MNT/dir/sub/a file.txt"
	second=$(now)
	echo three >"$MNT/report.txt"
	start_samba
	trap stop_samba EXIT

	[ -n "$(points_of report.txt)" ] || die "no previous versions of report.txt: $(smb 'allinfo report.txt')"
	[ -n "$(points_of 'dir/sub/a file.txt')" ] || die "no previous versions within a directory"
	equal "the first version" one "$(fetched "$first" report.txt)"
	equal "the second version" "two, longer" "$(fetched "$second" report.txt)"
	equal "the first version, deep" "deep one" "$(fetched "$first" 'dir/sub/a file.txt')"
	equal "the second version, deep" "deep two" "$(fetched "$second" 'dir/sub/a file.txt')"
	equal "the newest point" three "$(fetched "$(points_of report.txt | sort | tail -n 1)" report.txt)"
	smb "ls \"$first/*\"" | grep '^ *report.txt  *[A-Z]*  *4 ' >/dev/null || die "the share then: $(smb "ls \"$first/*\"")"
	smb "ls \"$first/dir/sub/*\"" | grep 'a file.txt' >/dev/null || die "a directory then: $(smb "ls \"$first/dir/sub/*\"")"

	# A client sees no .versions, writes as before, and cannot write into the past.
	smb ls | grep versions >/dev/null && die ".versions is listed"
	smb "del report.txt" >/dev/null
	[ ! -e "$MNT/report.txt" ] || die "the client could not delete"
	equal "a deleted file" "two, longer" "$(fetched "$second" report.txt)"
	echo new >"$WORK/new"
	smb "put $WORK/new report.txt" >/dev/null
	equal "what the client wrote" new "$(cat "$MNT/report.txt")"
	smb "put $WORK/new \"$first/report.txt\"" >"$WORK/smb" && die "the past was written to"
	grep -q NT_STATUS "$WORK/smb" || die "writing into the past: $(cat "$WORK/smb")"
	equal "the past" one "$(fetched "$first" report.txt)"
	trap - EXIT
	stop_samba
}

command -v smbd >/dev/null || die "smbd is missing: run packaging/setup --tests"
each_store check local s3
