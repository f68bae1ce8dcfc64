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
	expect '"power-key" "lid" "status-led" "heartbeat-led" "enable" "spare" "outlet"' \
		names_of_first 7
	# The first one that the tree does not name.
	names_of "$board" | cut -d ' ' -f 16 | grep -x unnamed
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
		{ value = $11 + $12 * 65536 - ($12 >= 32768 ? 4294967296 : 0) }
		$9 { printf "%s%d %d %d", comma, $9, $10, value; comma = "," }'
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

# A power outlet with a state that user space sets.
outlet=/sys/devices/platform/outlet/state

outlet_is_switched() {
	await expect disabled cat "$outlet"
	state_has board 6 output
	expect 0 vgpio --device board get --numeric 6
	echo enabled >"$outlet"
	expect 1 vgpio --device board get --numeric 6
	expect enabled cat "$outlet"
	echo disabled >"$outlet"
	expect 0 vgpio --device board get --numeric 6
	expect disabled cat "$outlet"
}
check 'regulator-fixed: the host sees that a supply is switched' outlet_is_switched

outlet_is_refused() {
	vgpio --device board fault set status=err,line=6
	# This driver only logs the error.
	echo enabled >"$outlet"
	dmesg | grep 'outlet: Failed to configure state: -5'
	expect disabled cat "$outlet"
	vgpio --device board fault clear
	echo enabled >"$outlet"
	expect enabled cat "$outlet"
	expect 1 vgpio --device board get --numeric 6
	echo disabled >"$outlet"
}
check 'regulator-fixed: a supply stays disabled if its line is refused' outlet_is_refused

# A detent of the encoder, in one direction or the other. The lines are in Gray code; each edge
# waits until the guest has dealt with the one before.
turn() { # LINE=VALUE...
	for edge; do
		vgpio --device board set "$edge"
		await dial_is_armed
	done
}
dial_is_armed() {
	state_has board 7 armed && state_has board 8 armed && state_lacks board 7 latched
}

turned() {
	watch_input events dial
	await dial_is_armed
	turn 7=1 8=1 7=0 8=0
	await expect '2 8 1' input_events events
	turn 7=1 8=1 7=0 8=0
	await expect '2 8 1,2 8 1' input_events events
	turn 8=1 7=1 8=0 7=0
	await expect '2 8 1,2 8 1,2 8 -1' input_events events
}
check 'rotary-encoder: the host turns a dial both ways' turned

turned_back() {
	watch_input events dial
	await dial_is_armed
	# Not far enough to be a detent.
	turn 7=1 7=0
	settle
	expect '' input_events events
}
check 'rotary-encoder: the host turns a dial a little and back' turned_back

# A key is released while the system sleeps, after a dial was turned that is not to wake it up. The
# kernel releases keys for a suspend, and reports a press for the interrupt that has woken it up, if
# gpio-keys is not resumed before genirq sends that again, from a tasklet.
woken() {
	watch_input events keys
	await state_has board 0 armed
	dial_is_armed
	host start key vgpio --device board toggle --count 2 --interval 12s 0
	await expect '1 116 1' input_events events
	await state_has board 0 armed
	host start dial vgpio --device board toggle --count 2 --interval 6s 7
	echo freeze >/sys/power/state
	expect 0 vgpio --device board get --numeric 0
	expect "$(irq_of "$(device_of "$board")")" cat /sys/power/pm_wakeup_irq
	host finish dial
	host finish key
	# All is as before.
	await dial_is_armed
	await state_has board 0 armed
	settle
	input_events events | grep -Ex '1 116 1,1 116 0(,1 116 1,1 116 0)?'
	expect 1 vgpio --device board get --numeric 2
	: >"$tmp/events"
	vgpio --device board set 0=1
	await expect '1 116 1' input_events events
	vgpio --device board set 0=0
	await expect '1 116 1,1 116 0' input_events events
}
irq_of() { # DEVICE
	sed -n "s/^ *\([0-9]*\):.* $1\$/\1/p" /proc/interrupts
}
check 'gpio-keys: a key wakes the sleeping system up, a dial does not' woken

# A key connects its column with its row, for as long as it is pressed: the row has the level of the
# column, which the guest drives. It drives all columns between scans. As a scan makes edges on the
# row, one scan follows another until no key is pressed.
press() { # ROW COLUMN
	vgpio --device board wire "$2" "$1"
}
lift() { # ROW COLUMN
	vgpio --device board wire "$2"
}
row_0=9 row_1=10 column_0=11 column_1=12

# Key codes are 2 to 5, which come after the scan codes, of another type.
keys_of_pad() { # NAME
	input_events "$1" | tr ',' '\n' | sed -n 's/^1 //p' | tr '\n' ',' | sed 's/,$//'
}
pad_is_idle() {
	state_has board "$row_0" armed && state_has board "$row_1" armed &&
		state_has board "$column_0" output && state_has board "$column_1" output
}
try_key() { # ROW COLUMN CODE
	: >"$tmp/events"
	press "$1" "$2"
	await expect "$3 1" keys_of_pad events
	lift "$1" "$2"
	await expect "$3 1,$3 0" keys_of_pad events
	await pad_is_idle
}

typed() {
	watch_input events keypad
	await pad_is_idle
	try_key "$row_0" "$column_0" 2
	try_key "$row_0" "$column_1" 3
	try_key "$row_1" "$column_0" 4
	try_key "$row_1" "$column_1" 5
}
check 'gpio-matrix-keypad: the host presses each key' typed

typed_together() {
	watch_input events keypad
	await pad_is_idle
	press "$row_0" "$column_0"
	await expect '2 1' keys_of_pad events
	press "$row_1" "$column_1"
	await expect '2 1,5 1' keys_of_pad events
	lift "$row_0" "$column_0"
	await expect '2 1,5 1,2 0' keys_of_pad events
	lift "$row_1" "$column_1"
	await expect '2 1,5 1,2 0,5 0' keys_of_pad events
}
check 'gpio-matrix-keypad: the host presses a key while another one is down' typed_together

# Of an EEPROM that the host has on a bus of two lines, see `vgpio eeprom`.
eeprom=/sys/bus/i2c/devices/0-0050/eeprom

dump() {
	od -An -v -tx1 -w16 "$eeprom"
}
dump_of_host() {
	vgpio --device board eeprom | cut -d : -f 2
}

eeprom_is_read() {
	await test -e "$eeprom"
	vgpio --device board eeprom "0=$(printf '%02x' $(seq 0 255))"
	expect "$(dump_of_host)" dump
	expect ' 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f' first_row
	vgpio --device board eeprom 0=ff00
	expect ' ff 00 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f' first_row
}
first_row() {
	od -An -v -tx1 -w16 -N 16 "$eeprom"
}
check 'i2c-gpio: the guest reads an EEPROM of the host' eeprom_is_read

eeprom_is_written() {
	# Over the end of a page.
	printf 'from the guest' | dd of="$eeprom" bs=1 seek=35 conv=notrunc
	vgpio --device board eeprom | grep '^20: 20 21 22 66 72 6f 6d 20 74 68 65 20 67 75 65 73'
	vgpio --device board eeprom | grep '^30: 74 31'
	expect "$(dump_of_host)" dump
}
check 'i2c-gpio: the host sees what the guest writes to an EEPROM' eeprom_is_written

no_eeprom() {
	echo 24c02 0x51 >/sys/bus/i2c/devices/i2c-0/new_device
	[ -e /sys/bus/i2c/devices/0-0051 ]
	[ ! -e /sys/bus/i2c/devices/0-0051/eeprom ]
	echo 0x51 >/sys/bus/i2c/devices/i2c-0/delete_device
}
check 'i2c-gpio: an address that no device acknowledges' no_eeprom

clock_is_held() {
	vgpio --device board set 14=0
	refuse 'timed out' cat "$eeprom"
	vgpio --device board set 14=1
	first_row
}
check 'i2c-gpio: a clock that the host holds low is a timeout' clock_is_held

# What cannot work, see tools/testing/devicetree/faulty.
plain=$(chip_with 4)

too_many_names() {
	expect '"one" "two" "three" "four" ' names_of "$plain"
}
check 'devicetree: names beyond the last line are ignored' too_many_names

no_such_line() {
	# gpiolib looks for a chip that has the line, and waits for one.
	await deferred no-such-line 'leds-gpio: Failed to get GPIO'
}
deferred() { # DEVICE REASON
	grep "^$1	.*$2" "$debugfs/devices_deferred"
}
check 'devicetree: the consumer of a line beyond the last one stays deferred' no_such_line

fails_to_probe() { # DEVICE PATTERN
	[ -e "/sys/bus/platform/devices/$1" ]
	[ ! -e "/sys/bus/platform/devices/$1/driver" ]
	fails deferred "$1"
	dmesg | grep "$1: $2"
}

no_interrupt() {
	await fails_to_probe no-interrupt 'Unable to convert GPIO line 0 to irq: -6'
	# It has given its lines back.
	state_has plain 0 unused
	state_has plain 1 unused
	gpioget --chip "$plain" 0 1
}
check 'devicetree: a keypad on a device without interrupts is an error' no_interrupt

no_domain() {
	await fails_to_probe no-domain 'error -6: Unable to determine IRQ# for button #0'
	state_has plain 2 unused
}
check 'devicetree: a key that is an interrupt of a device without any is an error' no_domain
