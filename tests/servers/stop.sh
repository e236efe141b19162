#!/bin/sh
# stop.sh PIDFILE...: TERM to each, KILL to those that are still there after 5 s.
for file; do
	pid=$(cat "$file" 2>/dev/null) && [ -n "$pid" ] || continue
	kill "$pid" 2>/dev/null
done
for file; do
	pid=$(cat "$file" 2>/dev/null) && [ -n "$pid" ] || continue
	tries=50
	# A process that has ended but is not yet reaped still has a number: Z is gone too.
	while [ "$tries" -gt 0 ] && kill -0 "$pid" 2>/dev/null && ! grep -qs '^State:.Z' "/proc/$pid/status"; do
		tries=$((tries - 1))
		sleep 0.1
	done
	[ "$tries" -gt 0 ] || kill -9 "$pid" 2>/dev/null
	rm -f "$file"
done
:
