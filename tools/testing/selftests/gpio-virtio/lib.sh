# SPDX-License-Identifier: GPL-2.0
# Variables are for the tests; busybox reads with a timeout.
# shellcheck shell=dash disable=SC2034,SC3045
#
# What the tests are written with.
#
# Requirements that checks name, D of the driver, V of the device:
#   D1  a message is a pair of buffers, and its answer is awaited
#   D2  messages for several lines may be at the device at the same time
#   D3  no interrupt messages and no eventq without the feature F_IRQ
#   D4  no interrupt for an output
#   D5  interrupt type none when done with an interrupt
#   D6  interrupt type none before another type
#   D7  the type is accepted before the line is unmasked
#   D8  at most one event buffer for a line
#   D9  value before direction when a line becomes an output
#   D10 names only if the device has some
#   D11 direction none when done with a line
#   D12 a device is reset when the driver leaves it
#   V3  direction none forgets the line's state
#   V4  an edge while masked is kept, until the interrupt is disabled
#   V5  an event only while enabled and unmasked
#   V7  a level that is still active notifies again
#   V8  no names is a size of zero

tmp=/tmp/gpio-virtio
mkdir -p "$tmp"
[ -p "$tmp/done" ] || mkfifo "$tmp/done"
exec 8<>"$tmp/done"

debugfs=/sys/kernel/debug
driver=/sys/bus/virtio/drivers/gpio_virtio
module=/sys/module/gpio_virtio
# Seconds for a test.
LIMIT=20

# Chips by their numbers of lines, see scripts/selftests.sh.
find_chips() {
	main=$(chip_with 8)
	noirq=$(chip_with 3)
	unnamed=$(chip_with 5)
	one=$(chip_with 1)
	many=$(chip_with 512)
}

chip_with() { # LINES
	gpiodetect 2>/dev/null | sed -n "s/^\(gpiochip[0-9]*\) .*($1 lines\?)$/\1/p"
}

there() { # LINES
	[ -n "$(chip_with "$1")" ]
}

absent() { # LINES
	! there "$1"
}

is_uml() {
	grep -q 'User Mode Linux' /proc/cpuinfo
}

# The virtio device of a chip.
device_of() { # CHIP
	basename "$(readlink -f "/sys/bus/gpio/devices/$1/..")"
}

# The names of all lines.
names_of() { # CHIP
	gpioinfo --chip "$1" |
		sed -n 's/^\tline *[0-9]*:\t\("[^"]*"\|unnamed\).*/\1/p' | tr '\n' ' '
}

# Runs a test: FUNCTION, of which each command has to succeed, within LIMIT seconds. It is a
# process of its own, and what it spawned ends with it.
check() { # NAME FUNCTION [ARGUMENT...]
	local name="$1" status=0
	shift

	: >"$tmp/pids"
	bounded "$LIMIT" "$@" >"$tmp/log" 2>&1 || status=$?
	while read -r pid; do
		kill_tree "$pid"
	done <"$tmp/pids"
	if [ "$status" = 0 ]; then
		ktap_test_pass "$name"
		return
	fi
	ktap_test_fail "$name"
	tail -n 25 "$tmp/log" | sed 's/^/# /'
	bounded 8 recover >/dev/null 2>&1
	find_chips
}

# The next test starts with devices that are as they should be.
recover() {
	vgpio fault clear || :
	host stop watch || :
	host stop load || :
	consumer_gone
	rmmod free_memory || :
	for device in /sys/bus/virtio/devices/*; do
		[ -e "$device/driver" ] || basename "$device" >"$driver/bind"
	done
}

# Runs FUNCTION as a process of its own that ends with the first command that fails, or else
# after some seconds. Does not wait for what is stuck in the kernel.
bounded() { # SECONDS FUNCTION [ARGUMENT...]
	local seconds="$1" verdict number
	shift

	runs=$((runs + 1))
	(
		trap '{ verdict=$?; set +x; } 2>/dev/null; echo "$runs $verdict" >&8' EXIT
		set -ex
		"$@"
	) </dev/null &
	while read -r -t "$seconds" number verdict <&8; do
		# One that was late with its run before is of no interest.
		[ "$number" != "$runs" ] || return "$verdict"
	done
	echo "not done within $seconds s"
	kill_tree "$!"
	# What the host may have answered meanwhile.
	timeout 1 cat <&7 >/dev/null
	return 124
}
runs=0

# Kills a process and its children, and waits until it has let go of what it has, unless it
# is stuck in the kernel.
kill_tree() { # PID
	local stat pid ppid tries=100

	for stat in /proc/[0-9]*/stat; do
		read -r pid _ _ ppid _ 2>/dev/null <"$stat" || continue
		[ "$ppid" != "$1" ] || kill -KILL "$pid"
	done
	kill -KILL "$1" 2>/dev/null
	while kill -0 "$1" 2>/dev/null && [ "$tries" -gt 0 ]; do
		tries=$((tries - 1))
		sleep 0.01
	done
}

# Runs a command in the background, with its output in $tmp/NAME.
spawn() { # NAME COMMAND...
	local name="$1"
	shift

	# Nothing may find there what the last one of this name has said.
	: >"$tmp/$name"
	"$@" >>"$tmp/$name" 2>&1 </dev/null &
	echo "$!" >>"$tmp/pids"
	echo "$!" >"$tmp/$name.pid"
}

# Ends what was spawned, if it has not ended by itself, and waits until it has.
end() { # NAME [SIGNAL]
	local pid
	pid=$(cat "$tmp/$1.pid")

	kill "-${2:-TERM}" "$pid" 2>/dev/null || :
	wait "$pid" 2>/dev/null || :
}

# What was spawned has ended.
gone() { # NAME
	! kill -0 "$(cat "$tmp/$1.pid")" 2>/dev/null
}

# Waits until a command succeeds, for some seconds.
await() { # COMMAND...
	local tries=100

	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		if [ "$tries" = 0 ]; then
			echo "waited in vain for: $*"
			"$@" || :
			return 1
		fi
		sleep 0.05
	done
}

# A command succeeds with just this output, besides messages.
expect() { # WANT COMMAND...
	local want="$1" got status=0
	shift

	got=$("$@") || status=$?
	if [ "$status" != 0 ] || [ "$got" != "$want" ]; then
		echo "$*: status $status"
		echo "got:  $got"
		echo "want: $want"
		return 1
	fi
}

# A command fails by itself, with a message that has PATTERN.
refuse() { # PATTERN COMMAND...
	local pattern="$1" got status=0
	shift

	got=$(timeout 10 "$@" 2>&1) || status=$?
	if [ "$status" = 0 ] || [ "$status" -ge 124 ] || ! echo "$got" | grep -q "$pattern"; then
		echo "$*: status $status, message: $got"
		echo "want: failure with '$pattern'"
		return 1
	fi
}

same() { # WANT GOT WHAT
	[ "$1" = "$2" ] || {
		echo "$3: got $2, want $1"
		return 1
	}
}

differ() { # NOT GOT WHAT
	[ "$1" != "$2" ] || {
		echo "$3: got $2"
		return 1
	}
}

# A command fails, which `!` alone does not make sure of unless it is the last one of a test.
fails() { # COMMAND...
	if "$@"; then
		echo "has not failed: $*"
		return 1
	fi
}

# A command ends, one way or the other, in less than 5 seconds.
ends() { # COMMAND...
	local start status=0
	start=$(seconds)
	"$@" || status=$?
	[ $(($(seconds) - start)) -lt 5 ]
	echo "$*: status $status"
}

# A counter of the device.
stat() { # DEVICE COUNTER
	vgpio --device "$1" stats | sed -n "s/^\t$2: //p"
}

# A fault has had an effect.
faults_seen() { # DEVICE
	[ "$(stat "$1" faults)" -gt 0 ]
}

# Runs with a fault of a device.
with_fault() { # DEVICE FAULT FUNCTION
	vgpio --device "$1" fault set "$2"
	"$3"
	vgpio --device "$1" fault clear
}

# Watches lines with gpiomon from when this returns, events go to $tmp/NAME.
monitor() { # NAME CHIP [OPTION | LINE]...
	local name="$1" chip="$2"
	shift 2

	spawn "$name" gpiomon --banner --chip "$chip" --format '%o %E' "$@"
	await started "$name"
}

# Drives lines with gpioset from when this returns.
drive() { # NAME CHIP [OPTION | LINE=VALUE]...
	local name="$1" chip="$2"
	shift 2

	spawn "$name" gpioset --banner --chip "$chip" "$@"
	await started "$name"
}

# Whether a tool of libgpiod has said its banner.
started() { # NAME
	grep -qE '^(Monitoring|Setting|Watching)' "$tmp/$1" || {
		cat "$tmp/$1"
		return 1
	}
}

count_events() { # NAME
	grep -cE ' (rising|falling)$' "$tmp/$1" || :
}

has_events() { # NAME NUMBER
	[ "$(count_events "$1")" -ge "$2" ]
}

has_lines() { # NAME NUMBER
	[ "$(wc -l <"$tmp/$1")" -ge "$2" ]
}

# All edges of lines were reported, but for those that the device merged because they came
# while the interrupt of the line was still being handled.
all_reported() { # DEVICE MERGED-BEFORE TOTAL NAME
	same "$3" "$(($(stat "$1" edges_merged) - $2 + $(count_events "$4")))" \
		'edges reported and merged'
}

# The events of a monitor, as words.
events() { # NAME
	sed 1d "$tmp/$1" | tr '\n' ' ' | sed 's/ $//'
}

last_event() {
	events mon | sed 's/.* //'
}

# The host changes one line and then another, each after the guest has seen the one before.
pace() { # NAME DEVICE LINE=VALUE...
	local name="$1" device="$2" seen
	shift 2

	for change; do
		seen=$(count_events "$name")
		vgpio --device "$device" set "$change"
		await has_events "$name" $((seen + 1))
	done
}

# Requests and events of the main device are as they should be.
lines_work() {
	expect '"door"=active' gpioget --chip "$main" door
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0
	expect '3 rising 3 falling' events mon
}

# The kernel has not complained so far.
no_splat() {
	dmesg >"$tmp/dmesg"
	no_complaint_in "$tmp/dmesg"
}

# The same, but for warnings that have a line with FIRST and one with LAST. Processors that warn at
# the same time mix their reports, which are judged together.
no_splat_but() { # FIRST LAST
	dmesg | awk -v first="$1" -v last="$2" '
		# A log that is full has lost the beginning of its first report: it tells nothing.
		NR == 1 && !/\[ *0\.000000\]/ { inside = cut = 1 }
		/cut here/ {
			if (cut || !inside) {
				printf "%s", mix
				mix = ""
				inside = cut = reports = firsts = lasts = 0
			}
			inside++
			reports++
		}
		!inside { print; next }
		{ mix = mix $0 "\n" }
		$0 ~ first { firsts++ }
		$0 ~ last { lasts++ }
		/end trace/ && --inside == 0 {
			if (cut || firsts >= reports && lasts >= reports)
				left += reports
			else
				printf "%s", mix
			mix = ""
			cut = 0
		}
		END { printf "%s", mix; print "known warnings: " left + 0 }' >"$tmp/dmesg"
	tail -n 1 "$tmp/dmesg"
	no_complaint_in "$tmp/dmesg"
}

# A close of a watched line during removal of its chip may free the interrupt after gpiolib has.
no_splat_while_chips_go() {
	no_splat_but 'Trying to free already-free IRQ' ' linereq_release'
}

no_complaint_in() { # LOG
	! grep -E -e 'WARNING:|BUG:|Oops|INFO: |Call Trace|KASAN|UBSAN|nobody cared|rcu:.*stall' \
		-e 'possible circular|general protection|scheduling while atomic' "$1"
}

# Of the time since boot.
seconds() {
	cut -d . -f 1 /proc/uptime
}

# Time for what should not happen.
settle() {
	sleep 0.2
}

# The socket of a vgpio that runs within the guest.
control=$tmp/inside.sock

# Why none can, if so.
nothing_inside() {
	if [ ! -x /bin/vgpio ]; then
		echo 'vgpio is not built for this machine'
	elif ! grep -q '_R.*gpio_virtio' /proc/kallsyms; then
		echo 'the driver in C waits without a timeout'
	fi
}

# A command for it.
inside() {
	/bin/vgpio --control "$control" "$@"
}

# A counter of its device `panel`.
of_panel() { # COUNTER
	inside --device panel stats | sed -n "s/^\t$1: //p"
}

# Edges that a monitor has seen, and those that the device merged meanwhile.
seen_or_merged() { # EDGES
	[ "$(($(count_events mon) + $(of_panel edges_merged)))" = "$1" ]
}

# Serves devices of the guest, one of which has 6 lines, from when this returns.
serve() { # --device DEVICE | --config FILE...
	spawn serve /bin/vgpio --control "$control" serve "$@"
	await served
	chip=$(chip_with 6)
	[ -n "$chip" ]
}

served() {
	grep -qx ready "$tmp/serve" || {
		cat "$tmp/serve"
		return 1
	}
}

# The words with which vgpio describes a line.
line_state() { # DEVICE LINE
	vgpio --device "$1" info "$2" | sed 's/.*\t//'
}

state_has() { # DEVICE LINE WORD
	line_state "$1" "$2" | tr ' ' '\n' | grep -qx -- "$3"
}

state_lacks() { # DEVICE LINE WORD
	! state_has "$@"
}

# The interrupt of a line, by the test module.
consumer=$debugfs/gpio_irq_consumer

load_consumer() {
	[ -d "$consumer" ] || insmod ./test_modules/gpio_irq_consumer.ko
	[ -d "$consumer" ]
}

consume() { # CHIP LINE TRIGGER CONTEXT
	local trigger

	case $3 in
	none) trigger=0 ;;
	rising) trigger=1 ;;
	falling) trigger=2 ;;
	both) trigger=3 ;;
	high) trigger=4 ;;
	low) trigger=8 ;;
	esac
	echo "$(device_of "$1") $2 $trigger $4" >"$consumer/request"
}

consumer_count() {
	cat "$consumer/count"
}

consumer_reaches() { # NUMBER
	[ "$(consumer_count)" -ge "$1" ]
}

consumer_gone() {
	[ ! -e "$consumer/free" ] || echo 1 >"$consumer/free"
}

# Does something COUNT times while three tasks use lines, none of which fails for it, and while
# the host changes two of them.
under_load() { # COMMAND...
	spawn churn ./gpio-line-churn 8 "$LIMIT" 0 4 5
	await has_lines churn 3
	host start load vgpio --device main toggle --count 10000000 --interval 2ms 0 4
	for _ in $(seq "$COUNT"); do
		"$@"
	done
	host stop load || :
	end churn
	cat "$tmp/churn"
	same 3 "$(grep -c ' 0 failed' "$tmp/churn")" 'lines without a failure'
}

# The same, and nothing is left behind.
nothing_left_behind() { # COMMAND...
	"$@"
	baseline
	under_load "$@"
	# Without the interrupts that lines were mapped to.
	"$@"
	nothing_leaked "$COUNT"
}
