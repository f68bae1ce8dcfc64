# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# Consumers within the kernel: gpio-virtuser, and for interrupts that user space cannot ask
# for the test module gpio_irq_consumer.

virtuser=/sys/kernel/config/gpio-virtuser/test

virtuser_new() { # CHIP LINE...
	local label line n=0
	label=$(device_of "$1")
	shift

	virtuser_gone
	mkdir "$virtuser" "$virtuser/lines"
	for line; do
		mkdir "$virtuser/lines/$n"
		echo "$label" >"$virtuser/lines/$n/key"
		echo "$line" >"$virtuser/lines/$n/offset"
		n=$((n + 1))
	done
	echo 1 >"$virtuser/live"
	attributes=$debugfs/gpio-virtuser/$(cat "$virtuser/dev_name")
}

virtuser_gone() {
	[ -d "$virtuser" ] || return 0
	[ "$(cat "$virtuser/live")" = 0 ] || echo 0 >"$virtuser/live"
	rmdir "$virtuser"/lines/* "$virtuser/lines" "$virtuser"
}

virtuser_values() {
	virtuser_new "$main" 4 5 6 7
	for line in 0 1 2 3; do
		echo output-low >"$attributes/gpiod:lines:$line/direction"
	done
	echo 1010 >"$attributes/gpiod:lines/values"
	expect '1 0 1 0' vgpio --device main get --numeric 4 5 6 7
	echo 0111 >"$attributes/gpiod:lines/values"
	expect '0 1 1 1' vgpio --device main get --numeric 4 5 6 7
	expect 0111 cat "$attributes/gpiod:lines/values"
	echo 0 >"$attributes/gpiod:lines:3/value"
	expect '0 1 1 0' vgpio --device main get --numeric 4 5 6 7
	virtuser_gone
	await state_has main 7 unused
}
check 'gpio-virtuser: drives lines together and alone, and reads them back' virtuser_values

virtuser_reads() {
	vgpio --device main set 4=1 5=0 6=0 7=1
	virtuser_new "$main" 4 5 6 7
	for line in 0 1 2 3; do
		echo input >"$attributes/gpiod:lines:$line/direction"
	done
	expect 1001 cat "$attributes/gpiod:lines/values"
	vgpio --device main set 4=0 5=1
	expect 0101 cat "$attributes/gpiod:lines/values"
	expect 1 cat "$attributes/gpiod:lines:1/value"
	virtuser_gone
	vgpio --device main set 4=0 5=0 6=0 7=0
}
check 'gpio-virtuser: reads lines together and alone' virtuser_reads

virtuser_turns() {
	virtuser_new "$main" 6
	echo output-high >"$attributes/gpiod:lines:0/direction"
	expect output cat "$attributes/gpiod:lines:0/direction"
	state_has main 6 output
	echo input >"$attributes/gpiod:lines:0/direction"
	expect input cat "$attributes/gpiod:lines:0/direction"
	state_has main 6 input
	virtuser_gone
}
check 'gpio-virtuser: turns a line from output to input' virtuser_turns

virtuser_interrupts() {
	virtuser_new "$main" 6
	echo input >"$attributes/gpiod:lines:0/direction"
	echo 1 >"$attributes/gpiod:lines:0/interrupts"
	for n in 1 2 3 4; do
		vgpio --device main toggle 6
		await expect "$n" cat "$attributes/gpiod:lines:0/interrupts"
	done
	echo 0 >"$attributes/gpiod:lines:0/interrupts"
	state_lacks main 6 irq=both
	virtuser_gone
}
check 'gpio-virtuser: counts the interrupts of a line' virtuser_interrupts

check 'consumer: the module of the following tests loads' load_consumer

# Sets a line and waits until there were that many interrupts.
strike() { # LINE=VALUE COUNT
	vgpio --device main set "$1"
	await consumer_reaches "$2"
}

released() { # LINE
	consumer_gone
	await state_has main "$1" unused
	state_lacks main "$1" armed
	settle
}

rising_hard() {
	consume "$main" 2 rising hard
	for n in 1 2 3; do
		strike 2=1 "$n"
		vgpio --device main set 2=0
	done
	settle
	expect 3 consumer_count
	released 2
}
check 'interrupt: rising edge, handler in hard interrupt context' rising_hard

falling_thread() {
	vgpio --device main set 2=1
	consume "$main" 2 falling thread
	for n in 1 2 3; do
		strike 2=0 "$n"
		vgpio --device main set 2=1
	done
	settle
	expect 3 consumer_count
	vgpio --device main set 2=0
	await consumer_reaches 4
	released 2
}
check 'interrupt: falling edge, handler in a thread (ONESHOT)' falling_thread

both_thread() {
	consume "$main" 2 both thread
	for n in 1 3 5; do
		strike 2=1 "$n"
		strike 2=0 $((n + 1))
	done
	settle
	expect 6 consumer_count
	released 2
}
check 'interrupt: both edges, handler in a thread (ONESHOT)' both_thread

level() { # TRIGGER ACTIVE INACTIVE
	vgpio --device main set "2=$3"
	consume "$main" 2 "$1" thread
	state_has main 2 "irq=level-$1"
	settle
	expect 0 consumer_count
	vgpio --device main set "2=$2"
	await consumer_reaches 5
	vgpio --device main set "2=$3"
	settle
	seen=$(consumer_count)
	settle
	expect "$seen" consumer_count
	# And again.
	vgpio --device main set "2=$2"
	await consumer_reaches $((seen + 5))
	vgpio --device main set "2=$3"
	released 2
	vgpio --device main set 2=0
}
check 'V7: level high: again and again while active, silent while not' level high 1 0
check 'V7: level low: again and again while active, silent while not' level low 0 1

level_at_start() {
	vgpio --device main set 2=1
	consume "$main" 2 high thread
	await consumer_reaches 3
	vgpio --device main set 2=0
	released 2
}
check 'V7: level high: a level that was there before the request' level_at_start

level_disabled() {
	consume "$main" 2 high thread
	echo 0 >"$consumer/enabled"
	vgpio --device main set 2=1
	settle
	seen=$(consumer_count)
	[ "$seen" -le 1 ]
	echo 1 >"$consumer/enabled"
	await consumer_reaches $((seen + 3))
	vgpio --device main set 2=0
	released 2
}
check 'V7: level high: silent while disabled, there again when enabled' level_disabled

edge_while_disabled() {
	consume "$main" 2 rising hard
	strike 2=1 1
	vgpio --device main set 2=0
	echo 0 >"$consumer/enabled"
	vgpio --device main set 2=1
	settle
	expect 1 consumer_count
	echo 1 >"$consumer/enabled"
	await consumer_reaches 2
	settle
	expect 2 consumer_count
	vgpio --device main set 2=0
	released 2
}
check 'V4: an edge between disable_irq and enable_irq is not lost' edge_while_disabled

enable_cycles() {
	consume "$main" 2 both hard
	for _ in $(seq 50); do
		echo 0 >"$consumer/enabled"
		echo 1 >"$consumer/enabled"
	done
	settle
	expect 0 consumer_count
	strike 2=1 1
	strike 2=0 2
	settle
	expect 2 consumer_count
	released 2
}
check 'interrupt: 50 times disable_irq and enable_irq make none, and lose none' enable_cycles

change_of_trigger() {
	consume "$main" 2 rising hard
	strike 2=1 1
	host start watch vgpio --device main notify --banner --num-events 4 2
	echo 2 >"$consumer/trigger"
	host finish watch | cut -f 2,4 | grep '^irq' | cut -f 2 >"$tmp/types"
	expect 'none falling ' words types
	strike 2=0 2
	vgpio --device main set 2=1
	settle
	expect 2 consumer_count
	vgpio --device main set 2=0
	released 2
}
words() { # NAME
	tr '\n' ' ' <"$tmp/$1"
}
check 'D6: another trigger type: none first, and then it works' change_of_trigger

no_trigger() {
	local invalid
	invalid=$(stat main events_invalid)
	# Whether it is refused is up to the driver. A line that had an interrupt before would
	# have its trigger still.
	consume "$main" 5 none hard || return 0
	vgpio --device main set 5=1
	vgpio --device main set 5=0
	settle
	expect 0 consumer_count
	same "$invalid" "$(stat main events_invalid)" 'event buffers for no interrupt'
	released 5
}
check 'D7: an interrupt without a trigger: the device gets no buffer for it' no_trigger

becomes_input() {
	consume "$main" 2 rising hard
	state_has main 2 input
	state_has main 2 armed
	released 2
}
check 'interrupt: the line of a consumer of nothing else is made an input' becomes_input

line_out_of_range() {
	fails consume "$main" 8 rising hard
	fails consume "$noirq" 0 rising hard
}
check 'D3: no interrupt beyond the last line, or without F_IRQ' line_out_of_range

both_kinds() {
	consume "$main" 2 rising thread
	monitor mon "$main" 3
	vgpio --device main set 2=1 3=1
	await consumer_reaches 1
	await has_events mon 1
	vgpio --device main set 3=0 2=0
	settle
	expect 1 consumer_count
	expect '3 rising 3 falling' events mon
	released 2
}
check 'interrupt: with gpiomon on another line of the chip' both_kinds

slow_thread() {
	# While the handler of line 2 has not returned, line 3 does not wait.
	echo 1 >"$consumer/held"
	consume "$main" 2 rising thread
	monitor mon "$main" 3
	strike 2=1 1
	pace mon main 3=1 3=0 3=1 3=0
	vgpio --device main set 2=0
	released 2
}
check 'interrupt: a slow handler of one line does not hold up another' slow_thread

not_an_output() {
	drive set "$main" 7=1
	fails consume "$main" 7 rising hard
	state_lacks main 7 irq=rising
	end set
	# gpiolib takes it for an output until it is requested as an input.
	expect '"7"=inactive' gpioget --chip "$main" 7
	consume "$main" 7 rising hard
	refuse 'unable to request lines' gpioset --chip "$main" 7=1
	released 7
}
check 'D4: no interrupt for an output, and no output with an interrupt' not_an_output
