# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# Edges, with gpiomon, and changes of who has a line, with gpionotify.

rising() {
	monitor mon "$main" --edges rising tamper
	for _ in 1 2 3; do
		pace mon main tamper=1
		vgpio --device main set tamper=0
	done
	settle
	expect '3 rising 3 rising 3 rising' events mon
}
check 'gpiomon: rising edges, each once, and no falling one' rising

falling() {
	vgpio --device main set tamper=1
	monitor mon "$main" --edges falling tamper
	for _ in 1 2 3; do
		pace mon main tamper=0
		vgpio --device main set tamper=1
	done
	vgpio --device main set tamper=0
	await has_events mon 4
	settle
	expect '3 falling 3 falling 3 falling 3 falling' events mon
}
check 'gpiomon: falling edges, each once, and no rising one' falling

both() {
	monitor mon "$main" --edges both tamper
	pace mon main tamper=1 tamper=0 tamper=1 tamper=0 tamper=1 tamper=0
	settle
	expect '3 rising 3 falling 3 rising 3 falling 3 rising 3 falling' events mon
}
check 'gpiomon: both edges, in order' both

no_edge() {
	vgpio --device main set tamper=1
	monitor mon "$main" tamper
	vgpio --device main set tamper=1
	settle
	expect '' events mon
	end mon
	vgpio --device main set tamper=0
}
check 'gpiomon: no event without an edge, whatever the level' no_edge

several_lines() {
	monitor mon "$main" 0 2 3 7
	pace mon main 2=1 0=1 7=1 0=0 3=1 7=0 2=0 3=0
	settle
	expect '2 rising 0 rising 7 rising 0 falling 3 rising 7 falling 2 falling 3 falling' \
		events mon
}
check 'gpiomon: several lines, in the order of their edges' several_lines

other_line() {
	monitor mon "$main" 2
	vgpio --device main set 3=1 3=0
	pace mon main 2=1 2=0
	settle
	expect '2 rising 2 falling' events mon
}
check 'gpiomon: edges of other lines are not reported' other_line

two_monitors() {
	monitor mon1 "$main" 2
	monitor mon2 "$main" 3
	pace mon1 main 2=1 2=0
	pace mon2 main 3=1
	end mon1
	pace mon2 main 3=0
	settle
	expect '2 rising 2 falling' events mon1
	expect '3 rising 3 falling' events mon2
}
check 'gpiomon: the end of one monitor does not disturb another' two_monitors

active_low_edges() {
	monitor mon "$main" --active-low tamper
	pace mon main tamper=1 tamper=0
	expect '3 falling 3 rising' events mon
}
check 'gpiomon: edges of an active-low line are inverted' active_low_edges

num_events() {
	spawn mon gpiomon --banner --chip "$main" --num-events 2 --format '%o %E' tamper
	await started mon
	vgpio --device main toggle --count 2 --interval 20ms tamper
	await gone mon
	expect '3 rising 3 falling' events mon
}
check 'gpiomon: ends after --num-events' num_events

idle() {
	expect '' timeout 5 gpiomon --chip "$main" --idle-timeout 100ms tamper
}
check 'gpiomon: ends after --idle-timeout' idle

burst() { # DEVICE CHIP COUNT LINE...
	local device="$1" chip="$2" count="$3" merged valid total
	shift 3

	merged=$(stat "$device" edges_merged)
	valid=$(stat "$device" events_valid)
	total=$((count * $#))
	monitor mon "$chip" "$@"
	vgpio --device "$device" toggle --count "$count" --interval 2ms "$@"
	await all_reported "$device" "$merged" "$total" mon
	settle
	all_reported "$device" "$merged" "$total" mon
	same "$(($(stat "$device" events_valid) - valid))" "$(count_events mon)" \
		'events of gpiomon, of the device'
}
check 'gpiomon: a burst of 200 edges on one line, none lost' burst main "$main" 200 tamper
check 'gpiomon: bursts of 50 edges on four lines, none lost' burst main "$main" 50 0 2 3 7

many_lines() {
	local i events=''

	# shellcheck disable=SC2046
	monitor mon "$many" $(seq 300 363)
	set --
	for i in $(seq 300 363); do
		set -- "$@" "$i=1"
		events="$events$i rising "
	done
	vgpio --device many set "$@"
	await has_events mon 64
	settle
	same "$events" "$(sed 1d "$tmp/mon" | sort -n | tr '\n' ' ')" events
}
check 'gpiomon: 64 of 512 lines fire at the same time, each once' many_lines

last_line() {
	monitor mon "$many" 511
	pace mon many 511=1 511=0
	expect '511 rising 511 falling' events mon
}
check '512 lines: edges of the last one' last_line

only_line() {
	vgpio --device one set 0=0
	monitor mon "$one" only
	pace mon one 0=1 0=0
	expect '0 rising 0 falling' events mon
}
check '1 line: its edges' only_line

nameless_line() {
	monitor mon "$unnamed" 3
	pace mon unnamed 3=1 3=0
	expect '3 rising 3 falling' events mon
}
check 'no names: edges of a line by its offset' nameless_line

without_irq_monitor() {
	refuse 'unable to request lines' gpiomon --chip "$noirq" first
	expect '"first"=inactive' gpioget --chip "$noirq" first
	same 0 "$(stat noirq requests.set_irq_type)" 'interrupt messages'
	same 0 "$(stat noirq event_queue.chains)" 'event buffers'
}
check 'D3: no F_IRQ: gpiomon is refused, and the device hears nothing of it' without_irq_monitor

# What the device was told about a line, as words.
setup_of() { # NAME
	cut -f 2,4 "$tmp/$1" | tr '\t\n' ': '
}

life_of_an_interrupt() {
	host start watch vgpio --device main notify --banner --num-events 6 tamper
	monitor mon "$main" --edges rising tamper
	end mon
	host finish watch >"$tmp/setup"
	# The type while masked, and the end of everything.
	expect 'direction:input irq:rising mask:armed ' setup_of_first 3
	expect 'direction:unused irq:none mask:masked ' setup_of_last 3
}
setup_of_first() {
	setup_of setup | cut -d ' ' -f "1-$1" | sed 's/$/ /'
}
setup_of_last() {
	sed "1,$((6 - $1))d" "$tmp/setup" >"$tmp/last"
	setup_of last | tr ' ' '\n' | grep . | sort | tr '\n' ' '
}
check 'D5 D7: input, type, then unmasked; type none and unused at the end' life_of_an_interrupt

killed_monitor() {
	monitor mon "$main" tamper
	state_has main tamper armed
	end mon KILL
	await state_has main tamper unused
	state_lacks main tamper irq=both
}
check 'D5 D11: interrupt and line are given up when gpiomon is killed' killed_monitor

one_buffer() {
	local invalid
	invalid=$(stat main events_invalid)
	monitor mon "$main" 0 2 3 7
	pace mon main 2=1 0=1 7=1 2=0 0=0 7=0
	# The device returns buffers that it has no use for at once.
	same "$invalid" "$(stat main events_invalid)" 'useless event buffers'
}
check 'D8: no event buffer that the device has no use for' one_buffer

masked_edge() {
	local latched
	latched=$(stat main edges_latched)
	monitor mon "$main" tamper
	# The second one comes before the first has been handled, at least now and then.
	for _ in $(seq 20); do
		vgpio --device main set tamper=1 tamper=0
		vgpio --device main set tamper=1 tamper=0
	done
	differ "$latched" "$(stat main edges_latched)" 'edges while masked'
	pace mon main tamper=1
	expect 'rising' last_event mon
	pace mon main tamper=0
	expect 'falling' last_event mon
}
check 'V4: edges while the line is masked do not stop its interrupt' masked_edge

monitored_is_busy() {
	monitor mon "$main" tamper
	refuse 'resource busy' gpioget --chip "$main" tamper
	refuse 'resource busy' gpiomon --chip "$main" tamper
	pace mon main tamper=1 tamper=0
}
check 'busy: a monitored line is refused to others' monitored_is_busy

again() {
	for _ in $(seq 20); do
		monitor mon "$main" --num-events 1 tamper
		vgpio --device main toggle tamper
		await gone mon
		expect 1 count_events mon
	done
}
check 'gpiomon: 20 times in a row, an edge each time' again

output_then_input() {
	drive set "$main" tamper=1
	end set
	vgpio --device main set tamper=0
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0
	expect '3 rising 3 falling' events mon
	end mon
	drive set "$main" tamper=1
	# D4: what is an output has no interrupt.
	expect 'output active driven-by=guest host=inactive' line_state main tamper
}
check 'D4: one line as output, interrupt, and output again' output_then_input

notified() {
	spawn notify gpionotify --banner --chip "$main" --format '%o %E' lid relay
	await started notify
	gpioget --chip "$main" lid
	timeout 5 gpiomon --chip "$main" --idle-timeout 10ms relay
	await has_lines notify 5
	settle
	expect '2 requested 2 released 6 requested 6 released' events notify
}
check 'gpionotify: lines requested and released by other processes' notified

notified_of_others() {
	spawn notify gpionotify --banner --chip "$main" --event requested --num-events 1 \
		--format '%o %E %C' lid
	await started notify
	gpioget --chip "$main" relay
	gpioget --chip "$main" --consumer somebody lid
	await gone notify
	expect '2 requested somebody' events notify
}
check 'gpionotify: only the event, the line and the consumer in question' notified_of_others
