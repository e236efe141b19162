# bash completion for varve(1)

_varve_mounts() {
	local mountpoint type
	while read -r mountpoint type; do
		[[ $type == fuse.varve ]] && printf '%b\n' "$mountpoint"
	done < <(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \([^ ]*\) .* - \([^ ]*\) .*/\1 \2/p' /proc/self/mountinfo)
}

_varve_mount_options() {
	local flags='create takeover allow_other ro foreground debug'
	local values='endpoint= region= profile= state= close= fsync= fsync_timeout= sweep= snapdir= snapdir_name= cache_size= reserve=
		uid= gid= umask= threads= max_requests= max_upload_rate= max_download_rate='
	local done= last=$1
	if [[ $last == *,* ]]; then
		done=${last%,*},
		last=${last##*,}
	fi
	case $last in
	close=*) COMPREPLY=($(compgen -P "${done}close=" -W 'journal store' -- "${last#*=}")) ;;
	fsync=*) COMPREPLY=($(compgen -P "${done}fsync=" -W 'store disk' -- "${last#*=}")) ;;
	snapdir=*) COMPREPLY=($(compgen -P "${done}snapdir=" -W 'hidden visible off' -- "${last#*=}")) ;;
	debug=*) COMPREPLY=($(compgen -P "${done}debug=" -W 'error warn info debug fuse' -- "${last#*=}")) ;;
	uid=*) COMPREPLY=($(compgen -P "${done}uid=" -u -- "${last#*=}")) ;;
	gid=*) COMPREPLY=($(compgen -P "${done}gid=" -g -- "${last#*=}")) ;;
	state=*) COMPREPLY=($(compgen -P "${done}state=" -d -- "${last#*=}")) ;;
	*) COMPREPLY=($(compgen -P "$done" -W "$flags $values" -- "$last")) ;;
	esac
	[[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}

# Entries of .versions for the file on the command line; times and digits are safe to complete.
_varve_versions() {
	local word path=
	for word in "${COMP_WORDS[@]:2}"; do
		[[ $word == -* || $word == "$cur" ]] || { path=$word; break; }
	done
	[[ $path ]] || return
	local dir=. name=${path##*/}
	[[ $path == */* ]] && dir=${path%/*}/
	local past=$(getfattr --only-values -n user.varve.snapdir -- "$dir" 2>/dev/null)
	COMPREPLY=($(compgen -W "$(command ls -- "$dir/${past:-.versions}/$name" 2>/dev/null)" -- "$cur"))
}

_varve() {
	local cur prev words cword IFS=$' \t\n'
	_init_completion -n =: 2>/dev/null || {
		cur=${COMP_WORDS[COMP_CWORD]}
		prev=${COMP_WORDS[COMP_CWORD - 1]}
		words=("${COMP_WORDS[@]}")
		cword=$COMP_CWORD
	}
	COMPREPLY=()
	if ((cword == 1)); then
		COMPREPLY=($(compgen -W 'mount umount status log diff restore undelete prune hold retain sweep rebuild fsck --help --version' -- "$cur"))
		return
	fi
	case ${words[1]} in
	mount)
		if [[ $prev == -o ]]; then
			_varve_mount_options "$cur"
		elif [[ $cur == -* ]]; then
			COMPREPLY=($(compgen -W '-o -f --help' -- "$cur"))
		elif ((cword == 2)); then
			COMPREPLY=($(compgen -W 's3:// file:///' -- "$cur"))
			compopt -o nospace
		else
			compopt -o dirnames
		fi
		;;
	umount | status | sweep)
		local flags='--json --help'
		[[ ${words[1]} == umount ]] && flags='--no-wait --help'
		if [[ $cur == -* ]]; then
			COMPREPLY=($(compgen -W "$flags" -- "$cur"))
		else
			IFS=$'\n'
			COMPREPLY=($(compgen -W "$(_varve_mounts)" -- "$cur"))
			compopt -o filenames
		fi
		;;
	log | diff | undelete)
		local flags='-r --since --until --json --help'
		[[ ${words[1]} == diff ]] && flags='--json --help'
		[[ ${words[1]} == undelete ]] && flags='-r --all --at --to --dry-run --json --help'
		if [[ $cur == -* ]]; then
			COMPREPLY=($(compgen -W "$flags" -- "$cur"))
		else
			compopt -o default
		fi
		;;
	restore)
		if [[ $prev == --version ]]; then
			_varve_versions
		elif [[ $cur == -* ]]; then
			COMPREPLY=($(compgen -W '-r --version --at --to --dry-run --json --help' -- "$cur"))
		else
			compopt -o default
		fi
		;;
	prune | hold | retain)
		local flags='--keep-last --keep-hourly --keep-daily --keep-weekly --keep-monthly --keep-yearly
			--keep-within --dry-run --json --help'
		[[ ${words[1]} == hold ]] && flags='-r --version --release --json --help'
		[[ ${words[1]} == retain ]] && flags='-r --version --until --for --compliance --json --help'
		if [[ $prev == --version && ${words[1]} != prune ]]; then
			_varve_versions
		elif [[ $cur == -* ]]; then
			COMPREPLY=($(compgen -W "$flags" -- "$cur"))
		else
			compopt -o default
		fi
		;;
	rebuild)
		if [[ $prev == -o ]]; then
			_varve_mount_options "$cur"
		elif [[ $prev == --state ]]; then
			compopt -o dirnames
		elif [[ $cur == -* ]]; then
			COMPREPLY=($(compgen -W '--state -o --help' -- "$cur"))
		else
			COMPREPLY=($(compgen -W 's3:// file:///' -- "$cur"))
			compopt -o nospace
		fi
		;;
	fsck)
		compopt -o dirnames
		;;
	esac
}

complete -F _varve varve
