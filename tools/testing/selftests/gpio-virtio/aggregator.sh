# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# Lines of several chips behind one: gpio-aggregator over three virtio devices and gpio-sim.

aggregator=/sys/kernel/config/gpio-aggregator/test
simulator=/sys/kernel/config/gpio-sim/test

aggregate() { # KEY OFFSET NAME...
	local n=0

	mkdir "$simulator" "$simulator/bank"
	echo 2 >"$simulator/bank/num_lines"
	echo sim >"$simulator/bank/label"
	echo 1 >"$simulator/live"
	mkdir "$aggregator"
	while [ $# -gt 0 ]; do
		mkdir "$aggregator/line$n"
		echo "$1" >"$aggregator/line$n/key"
		echo "$2" >"$aggregator/line$n/offset"
		echo "$3" >"$aggregator/line$n/name"
		n=$((n + 1))
		shift 3
	done
	echo 1 >"$aggregator/live"
}

aggregator_gone() {
	for live in "$aggregator/live" "$simulator/live"; do
		[ "$(cat "$live" 2>/dev/null)" != 1 ] || echo 0 >"$live"
	done
	# rmdir takes them in this order: what is inside has to go first.
	for directory in "$aggregator"/line* "$aggregator" "$simulator/bank" "$simulator"; do
		[ ! -d "$directory" ] || rmdir "$directory"
	done
}

# The simulated line, as a user of gpio-sim sees it.
simulated() { # ATTRIBUTE
	local device
	device=/sys/devices/platform/$(cat "$simulator/dev_name")

	echo "$device/$(cat "$simulator/bank/chip_name")/sim_gpio1/$1"
}

aggregator_is_a_chip() {
	aggregator_gone
	# The last one is found by the name that the device gives to it.
	aggregate "$(device_of "$main")" 2 in "$(device_of "$main")" 4 out \
		"$(device_of "$unnamed")" 1 other-in "$(device_of "$unnamed")" 3 other-out \
		"$(device_of "$noirq")" 0 plain sim 1 simulated relay -1 by-name
	there 7
	expect '"in" "out" "other-in" "other-out" "plain" "simulated" "by-name" ' \
		names_of "$(chip_with 7)"
}
check 'aggregator: lines of three devices and of gpio-sim are a chip' aggregator_is_a_chip

aggregator_holds() {
	gpioinfo --chip "$main" relay | grep -F "consumer=\"$(cat "$aggregator/dev_name")\""
	refuse 'busy' gpioset --chip "$main" relay=1
	refuse 'busy' gpioget --chip "$unnamed" 1
	gpioget --chip "$unnamed" 2
}
check 'aggregator: has its lines for itself' aggregator_holds

aggregator_drives() {
	chip=$(chip_with 7)
	drive set "$chip" 1=1 3=0 4=1 5=1 6=0
	expect '1 0' vgpio --device main get --numeric 4 6
	expect 0 vgpio --device unnamed get --numeric 3
	expect 1 vgpio --device noirq get --numeric 0
	expect 1 cat "$(simulated value)"
	state_has main 4 output
	state_has unnamed 3 output
	end set
	drive set "$chip" 1=0 3=1 4=0 5=0 6=1
	expect '0 1' vgpio --device main get --numeric 4 6
	expect 1 vgpio --device unnamed get --numeric 3
	expect 0 vgpio --device noirq get --numeric 0
	expect 0 cat "$(simulated value)"
	end set
}
check 'aggregator: the host sees the values of outputs on each device' aggregator_drives

aggregator_reads() {
	chip=$(chip_with 7)
	# gpio-sim pulls only what is an input by now.
	gpioget --chip "$chip" 5
	vgpio --device main set 2=1
	vgpio --device unnamed set 1=0
	vgpio --device noirq set 0=1
	echo pull-up >"$(simulated pull)"
	expect '1 0 1 1' gpioget --numeric --chip "$chip" 0 2 4 5
	vgpio --device main set 2=0
	vgpio --device unnamed set 1=1
	vgpio --device noirq set 0=0
	echo pull-down >"$(simulated pull)"
	expect '0 1 0 0' gpioget --numeric --chip "$chip" 0 2 4 5
	# It was an output.
	state_has noirq 0 input
	vgpio --device unnamed set 1=0
}
check 'aggregator: inputs of all chips are read together' aggregator_reads

aggregator_turns() {
	chip=$(chip_with 7)
	drive set "$chip" 1=1 3=1
	end set
	gpioget --chip "$chip" 1 3
	state_has main 4 input
	state_has unnamed 3 input
}
check 'aggregator: turns outputs into inputs' aggregator_turns

aggregator_edges() {
	vgpio --device main set 2=0
	vgpio --device unnamed set 1=0
	echo pull-down >"$(simulated pull)"
	monitor mon "$(chip_with 7)" 0 2 5
	state_has main 2 irq=both
	state_has unnamed 1 irq=both
	pace mon main 2=1
	pace mon unnamed 1=1
	echo pull-up >"$(simulated pull)"
	await has_events mon 3
	pace mon main 2=0
	echo pull-down >"$(simulated pull)"
	await has_events mon 5
	pace mon unnamed 1=0
	expect '0 rising 2 rising 5 rising 0 falling 5 falling 2 falling' events mon
	end mon
	state_lacks main 2 irq=both
}
check 'aggregator: edges of lines of two devices and of gpio-sim' aggregator_edges

aggregator_edges_refused() {
	chip=$(chip_with 7)
	refuse 'unable to request lines' gpiomon --chip "$chip" 4
	# And the line is none the worse.
	vgpio --device noirq set 0=1
	expect 1 gpioget --numeric --chip "$chip" 4
	vgpio --device noirq set 0=0
}
check 'aggregator: no edges of a line of a device without interrupts' aggregator_edges_refused

aggregator_loses_a_chip() {
	chip=$(chip_with 7)
	device=$(device_of "$unnamed")
	echo "$device" >"$driver/unbind"
	refuse 'No such device' gpioget --chip "$chip" 2
	refuse 'No such device' gpioset --chip "$chip" 3=1
	vgpio --device main set 2=1
	expect 1 gpioget --numeric --chip "$chip" 0
	vgpio --device main set 2=0
	echo "$device" >"$driver/bind"
	# It has the lines of the chip that is gone, not those of the new one.
	refuse 'No such device' gpioget --chip "$chip" 2
	gpioget --chip "$(chip_with 5)" 1
}
check 'aggregator: keeps its other lines when a device is unbound' aggregator_loses_a_chip
find_chips

aggregator_ends() {
	aggregator_gone
	absent 7
	await state_has main 4 unused
	await state_has main 6 unused
	await state_has noirq 0 unused
	gpioget --chip "$main" 2 4 6
	# The aggregator kept the number of the chip that was unbound: it is free again.
	device=$(device_of "$unnamed")
	echo "$device" >"$driver/unbind"
	echo "$device" >"$driver/bind"
}
check 'aggregator: gives its lines back' aggregator_ends
find_chips
