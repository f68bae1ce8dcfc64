# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# A controller with a node in the device tree, and its consumers there, see
# tools/testing/devicetree. They may be bound only after the tests have begun.

board=$(chip_with 32)

node_is_found() {
	[ "$(tr -d '\0' <"/sys/bus/virtio/devices/$(device_of "$board")/of_node/compatible")" = \
		virtio,device29 ]
}
check 'devicetree: the device has its node' node_is_found

names_of_tree() {
	expect '"power-key" "lid" "status-led" "heartbeat-led" "enable" "spare" unnamed' \
		names_of_first 7
}
names_of_first() { # LINES
	names_of "$board" | cut -d ' ' -f "-$1"
}
check 'devicetree: names of lines are those of the tree, not those of the device' names_of_tree

hogged() {
	await state_has board 4 output
	expect 1 vgpio --device board get --numeric 4
	gpioinfo --chip "$board" 4 | grep -F 'consumer="enable"'
	refuse 'busy' gpioset --chip "$board" 4=0
	expect 1 vgpio --device board get --numeric 4
}
check 'devicetree: a hog drives its line, and keeps it' hogged

# The events of an input device as TYPE CODE VALUE, without those that separate them.
watch_input() { # NAME INPUT
	await input_of "$2"
	spawn "$1" cat "/dev/input/$(input_of "$2")"
}
input_of() { # INPUT
	grep -lx "$1" /sys/class/input/event*/device/name | cut -d / -f 5 | grep .
}
input_events() { # NAME
	od -An -v -tu2 -w24 "$tmp/$1" | awk '
		$9 { printf "%s%d %d %d", comma, $9, $10, $11 + $12; comma = "," }'
}

# What the host does, and the events of type key that it makes.
pressed() {
	watch_input events keys
	await state_has board 0 armed
	vgpio --device board set 0=1
	await expect '1 116 1' input_events events
	vgpio --device board set 0=0
	await expect '1 116 1,1 116 0' input_events events
}
check 'gpio-keys: the host presses and releases a key that is a line' pressed

struck() {
	watch_input events keys
	await state_has board 1 irq=rising
	vgpio --device board set 1=1
	await expect '1 142 1,1 142 0' input_events events
	vgpio --device board set 1=0
	settle
	expect '1 142 1,1 142 0' input_events events
}
check 'gpio-keys: the host presses a key that is an interrupt' struck

led_is_on() {
	await expect '1' vgpio --device board get --numeric 2
	state_has board 2 output
	expect 1 cat /sys/class/leds/status/brightness
}
check 'leds-gpio: the host sees an LED that is on by default' led_is_on

led_is_set() {
	echo 0 >/sys/class/leds/status/brightness
	await expect '0' vgpio --device board get --numeric 2
	echo 1 >/sys/class/leds/status/brightness
	await expect '1' vgpio --device board get --numeric 2
}
check 'leds-gpio: the host sees an LED that is turned off and on' led_is_set

led_blinks() {
	await test -d /sys/class/leds/heartbeat/
	expect '[timer]' trigger
	echo 50 >/sys/class/leds/heartbeat/delay_on
	echo 50 >/sys/class/leds/heartbeat/delay_off
	host start blinks vgpio --device board mon --banner --num-events 6 3
	host finish blinks | grep -c '	guest$' >"$tmp/blinks"
	expect 6 cat "$tmp/blinks"
	echo none >/sys/class/leds/heartbeat/trigger
	# It is active low.
	await expect '1' vgpio --device board get --numeric 3
	settle
	expect '1' vgpio --device board get --numeric 3
}
trigger() {
	grep -o '\[.*\]' /sys/class/leds/heartbeat/trigger
}
check 'leds-gpio: the host sees an LED blink, until its trigger is removed' led_blinks
