# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# A device that returns event buffers as fast as it can. Each storm lasts COUNT seconds.

LIMIT=$((120 + COUNT * 6))

begun=$(seconds)

returned() {
	stat main event_queue.returned
}

# A task that only computes does so much of what it did before, on each processor. A device that
# was as busy before takes as much of the host's processors.
is_left() { # PERCENT STORM [BUSY]
	local before quiet stormy seconds percent="$1"
	shift
	${2:-:}
	quiet=$(./spin "$COUNT")
	[ $# -lt 2 ] || host stop watch || :
	before=$(returned)
	seconds=$(seconds)
	"$1"
	stormy=$(./spin "$COUNT")
	echo "$(($(returned) - before)) buffers in about $(($(seconds) - seconds)) seconds"
	echo "$stormy rounds, $quiet without the storm"
	[ $((stormy * 100)) -ge $((quiet * percent)) ]
}

invalid_events() {
	monitor mon "$main" tamper
	is_left 50 refuse_buffers
	vgpio --device main fault clear
	pace mon main tamper=1 tamper=0 tamper=1 tamper=0
}
refuse_buffers() {
	vgpio --device main fault set invalid-events,line=tamper
	# The one that the device has comes back with an edge.
	vgpio --device main toggle --count 2 tamper
}
check 'storm: of INVALID: half of each processor is left, then the line works' invalid_events

# The reader wants each edge, and leaves the processor to others. QEMU emulates each interrupt and
# each notification, at the expense of the guest's processor.
edges() {
	local percent=10
	! is_uml || percent=66
	monitor mon "$main" tamper lid
	renice -n 19 -p "$(cat "$tmp/mon.pid")"
	is_left "$percent" toggle toggle_unwatched
	host stop watch || :
	vgpio --device main set tamper=0 lid=0
	settle
	pace mon main tamper=1 lid=1 tamper=0 lid=0
}
toggle_unwatched() {
	host start watch vgpio --device main toggle --count 1000000000 --interval 0 button door
}
toggle() {
	host start watch vgpio --device main toggle --count 1000000000 --interval 0 tamper lid
}
check 'storm: of edges: other tasks have their share, then the lines work' edges

odd_events() {
	monitor mon "$main" tamper
	is_left 50 toggle_oddly toggle_unwatched
	host stop watch || :
	vgpio --device main fault clear
	vgpio --device main set tamper=0
	settle
	pace mon main tamper=1 tamper=0
}
toggle_oddly() {
	vgpio --device main fault set event-status=7,line=tamper
	host start watch vgpio --device main toggle --count 1000000000 --interval 0 tamper
}
check 'storm: of events that make no sense: half of each processor is left, then the line works' \
	odd_events

# The most lines that the kernel has logged within 60 seconds since this part began.
most_lines() {
	dmesg | tr -d '[]' | awk -v since="$begun" '
		BEGIN { first = last = most = 0 }
		$1 < since { next }
		{
			times[last++] = $1
			while (times[first] < $1 - 60)
				first++
			if (last - first > most)
				most = last - first
		}
		END { print most }'
}

quiet_log() {
	local most
	echo 'gpio storm test: the log works' >/dev/kmsg
	most=$(most_lines)
	echo "$most lines"
	[ "$most" -ge 1 ]
	[ "$most" -lt 100 ]
}
check 'storm: less than 100 lines of the kernel log in any minute' quiet_log
check 'storm: no warning, bug, oops, or complaint of a checker' no_splat
