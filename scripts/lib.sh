# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Common to all scripts: the directories, error messages, progress of long steps, and locks
# between two runs.

set -euo pipefail

# Hides the calling make from those of the kernel and of tests, which would take its flags and
# print the directories that they enter.
unset "${!MAKE@}" MFLAGS
# What tools say is compared and counted.
export LC_ALL=C.UTF-8

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpio-virtio-rust
# Debian's, of the toolchain, the kernel and the guests.
# shellcheck disable=SC2034 # for those that source this
release=trixie

# What depends on the checkout (grafted tree, builds) is kept apart from what does not.
# shellcheck disable=SC2034 # for those that source this
own=$cache/checkouts/$(printf %s "$repo" | sha256sum | cut -c 1-12)

# The version that the repository is for, or the one after it, with a tree and builds of its own.
kernel=${KERNEL:-7.2}
[[ $kernel == 7.2 ]] || own+=-$kernel

# The control socket of the device that `make run` starts: short, as a socket's path must be.
# shellcheck disable=SC2034 # for those that source this
control_dir=/tmp/gpio-virtio-rust-$(basename "$own")

# The one line that a failure gives: what failed, where, and what to do about it.
die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

note() {
	printf '%s\n' "$*" >&2
}

# A variable of the user's has to be one of the words that follow.
one_of() { # NAME VALUE CHOICE...
	local choice choices

	for choice in "${@:3}"; do
		[[ $2 != "$choice" ]] || return 0
	done
	printf -v choices '%s or ' "${@:3}"
	die "$1=$2: must be ${choices% or }"
}

one_of KERNEL "$kernel" 7.2 7.3

# Fills `machine` with what scripts/arch has of an architecture, lines of NAME=VALUE.
# shellcheck disable=SC2034 # for those that source this
declare -A machine
# shellcheck disable=SC2034 # for those that source this
machine_of() { # ARCH
	local file name value known=()

	for file in "$repo"/scripts/arch/*; do
		known+=("$(basename "$file")")
	done
	one_of ARCH "$1" "${known[@]}"
	machine=()
	while IFS='=' read -r name value; do
		[[ $name == '#'* ]] || machine[$name]=$value
	done <"$repo/scripts/arch/$1"
}

as_root() { # COMMAND...
	if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# Makes sure that as_root works, before its output goes to a log where sudo cannot ask for
# a password, or says what to run.
need_root() { # COMMAND_LINE
	((EUID == 0)) || { command -v sudo >/dev/null && sudo true; } ||
		die "this host must be prepared: run '$1' as root, then try again"
}

# A root made in a user namespace can only be removed from within it.
remove_root() { # DIRECTORY
	rm -rf "$1" 2>/dev/null || mmdebstrap --unshare-helper rm -rf "$1"
}

# Fails early, while nothing is half-done, unless DIRECTORY has room for MIB mebibytes.
need_space() { # DIRECTORY MIB
	local free

	mkdir -p "$1" 2>/dev/null || die "cannot create $1: check its permissions, or set XDG_CACHE_HOME"
	free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
	((free >= $2)) || die "$1 has $free MiB free, $2 MiB are needed: free some space, or set XDG_CACHE_HOME"
}

# Holds the named lock until the script ends; a second run waits and says so.
lock() { # NAME
	local fd

	mkdir -p "$cache" 2>/dev/null || die "cannot create $cache: check its permissions, or set XDG_CACHE_HOME"
	exec {fd}>"$cache/$1.lock"
	flock -n "$fd" || {
		note "waiting for another run to finish with $1 ..."
		flock "$fd"
	}
}

# Runs a command with its output in LOG, and returns its status. Shows progress meanwhile,
# where the command is a build in its steps of about TOTAL.
run_watched() { # LABEL LOG TOTAL COMMAND...
	local label=$1 log=$2 total=$3 start=$SECONDS pid status=0 shown=-10
	shift 3

	mkdir -p "$(dirname "$log")"
	: >"$log"
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	# On an interrupt, terminate the job, too.
	trap 'kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; exit 130' INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		if [[ -t 2 ]]; then
			progress '\r%s: %s\e[K' "$label" "$log" "$total" $((SECONDS - start))
		elif ((SECONDS - shown >= 10)); then
			progress '%s: %s\n' "$label" "$log" "$total" $((SECONDS - start))
			shown=$SECONDS
		fi
		sleep 0.3
	done
	wait "$pid" || status=$?
	trap - INT TERM
	[[ ! -t 2 ]] || printf '\r\e[K' >&2
	((status)) || note "$label: done in $((SECONDS - start)) s"
	return "$status"
}

# Runs a command that builds; its failure is told with what its log says of it.
run_logged() { # LABEL LOG TOTAL COMMAND...
	run_watched "$@" && return
	why "$2" >&2
	die "$1 failed, the whole log is $2"
}

# Runs a command that downloads; its failure is told in one line, with its own first error.
run_fetch() { # LABEL LOG COMMAND...
	run_watched "$1" "$2" 0 "${@:3}" && return
	die "$1 failed: $(grep -m 1 -E '^(E|error): ' "$2" || echo "see $2"): check the network, or set DEBIAN_MIRROR=<url>"
}

progress() { # FORMAT LABEL LOG TOTAL ELAPSED
	local steps

	steps=$(steps_of "$3")
	case $steps,$4 in
	0,*) steps= ;;
	*,0) steps=", $steps steps" ;;
	*) steps=", $steps of about $4 steps" ;;
	esac
	# shellcheck disable=SC2059 # the two formats are in run_logged
	printf "$1" "$2" "$5 s$steps" >&2
}

# How many objects a kernel build's log tells of.
steps_of() { # LOG
	grep -cE '^ +[A-Z]' "$1" || true
}

# The first error in a log with what is around it, else the log's end.
why() { # LOG
	local line

	line=$(grep -n -m 1 -E '(^|[^A-Za-z_])(error(\[E[0-9]+\])?:|undefined symbol)' "$1" | cut -d : -f 1) || true
	if [[ -n $line ]]; then
		tail -n "+$((line > 3 ? line - 3 : 1))" "$1" | head -n 30
	else
		tail -n 30 "$1"
	fi
}

# The parameters that the KUnit suites get, one to a line: short timeouts, as most of their
# time goes into waiting for devices that do not answer.
kunit_args() { # TIMEOUT_MS PATIENCE_MS
	{
		printf '%s\n' "gpio_virtio.timeout_ms=$1" "gpio_virtio_kunit.patience_ms=$2" \
			"gpio_virtio_kunit.shuffle=${SHUFFLE:-0}"
		# Tasks that poll would hide that those that sleep are not woken.
		echo gpio_virtio.poll_us=0
		# The requests of the driver in C have no timeout.
		[[ ${DRIVER:-rust} == rust ]] || echo gpio_virtio_kunit.fuzz_seeds=0
		# shellcheck disable=SC2086 # one word each
		[[ -z ${KUNIT_ARGS:-} ]] || printf '%s\n' $KUNIT_ARGS
		# Each once: a parameter of a module in Rust takes its first value, and no other. Without a
		# value it is left to its default.
	} | awk -F= '{ value[$1] = $2 } END { for (name in value) if (value[name] != "") print name "=" value[name] }'
}

# Prints the numbers of passed and of failed tests in a log that ends with `N passed, N failed`, or
# that is kunit.py's.
count_totals() { # LOG
	awk '
		/^[0-9]+ passed, [0-9]+ failed$/ { good = $1; bad = $3 }
		/Testing complete\. Ran [0-9]+ tests/ {
			good = bad = 0
			for (i = 1; i < NF; i++) {
				if ($i == "passed:") good = $(i + 1) + 0
				if ($i ~ /^(failed|crashed|errors):$/) bad += $(i + 1)
			}
		}
		END { print good + 0, bad + 0 }' "$1"
}
