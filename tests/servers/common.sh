# common.sh: sourced by the start scripts.

# wait_ready PID TRIES COMMAND...: until the command succeeds, a tenth of a second between tries.
wait_ready() {
	_pid=$1 _tries=$2
	shift 2
	while [ "$_tries" -gt 0 ]; do
		kill -0 "$_pid" 2>/dev/null || {
			echo "the server died; see its log" >&2
			return 1
		}
		"$@" >/dev/null 2>&1 && return 0
		_tries=$((_tries - 1))
		sleep 0.1
	done
	echo "the server is not ready in time" >&2
	kill "$_pid" 2>/dev/null
	return 1
}
