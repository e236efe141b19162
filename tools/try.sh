#!/bin/sh
# Mounts a store in ./try, saves a file three times and shows its past. Called by `make try`; safe to repeat.
set -eu
umask 022

case ${BUILD:=build} in
/*) varve=$BUILD/varve ;;
*) varve=$PWD/$BUILD/varve ;;
esac
store=$PWD/try/store
state=$PWD/try/state
mnt=$PWD/try/mnt
file=$mnt/report.txt

show() {
	printf '\n$ %s\n' "$*"
	"$@"
}

is_mounted() {
	"$varve" status "$mnt" >/dev/null 2>&1
}

mkdir -p "$store" "$state"
# A mount whose daemon was killed stands in the way of everything, mkdir included.
is_mounted || "$varve" umount --no-wait "$mnt" >/dev/null 2>&1 || :
mkdir -p "$mnt"
is_mounted || "$varve" mount "file://$store" "$mnt" -o "state=$(printf %s "$state" | sed 's/[\\,]/\\&/g')"

echo "A directory is mounted at try/mnt; its content is kept in try/store. One file, saved three times:"
for line in 'first draft' 'second thoughts' 'final words'; do
	printf '\n$ echo "%s" > try/mnt/report.txt\n' "$line"
	echo "$line" >"$file"
	sleep 0.1 # so that the times can be told apart
done
cd "$(dirname "$mnt")/.."

echo
echo "Every one of them is still there, as a file:"
show ls -l try/mnt/.versions/report.txt
oldest=$(ls try/mnt/.versions/report.txt | head -n 1)
show cat "try/mnt/.versions/report.txt/$oldest"
show cp "try/mnt/.versions/report.txt/$oldest" try/before.txt
show cat "try/mnt/.versions/report.txt/-2"
if command -v getfattr >/dev/null 2>&1; then
	show getfattr -d "try/mnt/.versions/report.txt/$oldest"
else
	echo "(getfattr, of Debian's package attr, would show what is known of each version)"
fi
show "${varve#"$PWD"/}" log try/mnt/report.txt

cat <<END

It stays mounted. To explore and to unmount:
  ls -l $mnt/.versions/report.txt
  $varve umount $mnt
END
