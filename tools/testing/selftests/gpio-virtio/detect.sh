# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# What the driver makes known of its devices.

every_device_has_a_chip() {
	gpiodetect
	for chip in "$main" "$noirq" "$unnamed" "$one" "$many"; do
		[ -c "/dev/$chip" ]
		driver=$(readlink "/sys/bus/virtio/devices/$(device_of "$chip")/driver")
		same gpio_virtio "$(basename "$driver")" driver
	done
}
check 'detect: each device is a chip with its number of lines' every_device_has_a_chip

label_is_device() {
	for chip in "$main" "$many"; do
		gpiodetect "$chip" | grep -qF "[$(device_of "$chip")]"
	done
}
check 'detect: the label of a chip is the name of its device' label_is_device

irq_is_negotiated() {
	same 1 "$(cut -c 1 "/sys/bus/virtio/devices/$(device_of "$main")/features")" 'F_IRQ of main'
	same 1 "$(cut -c 1 "/sys/bus/virtio/devices/$(device_of "$many")/features")" 'F_IRQ of many'
	same 0 "$(cut -c 1 "/sys/bus/virtio/devices/$(device_of "$noirq")/features")" \
		'F_IRQ of noirq'
}
check 'D3: the interrupt feature is taken where it is offered' irq_is_negotiated

check 'D10: named lines have the names that the device gives' \
	expect '"button" "door" "lid" "tamper" "led-red" "led-green" "relay" "buzzer" ' \
	names_of "$main"

check 'V8: lines of a device without names have none' \
	expect "$(printf 'unnamed %.0s' 1 2 3 4 5)" names_of "$unnamed"

no_names_asked() {
	same 0 "$(stat unnamed requests.get_line_names)" 'requests for names'
	same 1 "$(stat main requests.get_line_names)" 'requests for names'
}
check 'D10: names are asked for once, and only if there are any' no_names_asked

gap_in_names() {
	expect '"first" unnamed "third" ' names_of "$noirq"
}
check 'D10: an unnamed line between named ones keeps its place' gap_in_names

all_512_names() {
	gpioinfo --chip "$many" |
		sed -n 's/^\tline *\([0-9]*\):\t"\([^"]*\)".*/\1 \2/p' >"$tmp/names"
	same 512 "$(wc -l <"$tmp/names")" 'named lines'
	same 0 "$(awk '$2 != sprintf("line%d", $1)' "$tmp/names" | wc -l)" \
		'lines with the name of another'
}
check 'D10: all of 512 lines have their own names' all_512_names

check 'D10: the only line of a device has its name' expect '"only" ' names_of "$one"

inputs_at_start() {
	for chip in "$main" "$noirq" "$unnamed" "$one" "$many"; do
		same 0 "$(gpioinfo --chip "$chip" | grep -c output || :)" "outputs of $chip"
	done
	same 512 "$(gpioinfo --chip "$many" | grep -c input)" 'inputs of many'
}
check 'info: lines that are not configured are not outputs' inputs_at_start

directions_asked() {
	# Once each at least; a driver may well ask again.
	[ "$(stat many requests.get_direction)" -ge 512 ]
	[ "$(stat one requests.get_direction)" -ge 1 ]
}
check 'D1: the direction of each line was asked for' directions_asked

line_by_name() {
	vgpio --device main set tamper=1
	expect '"tamper"=active' gpioget tamper
	vgpio --device main set tamper=0
}
check 'info: a line is found by its name alone' line_by_name

# What scripts/boot was asked for is what the devices have, all but the one with a single queue.
platform_between() {
	for chip in "$main" "$unnamed" "$one" "$many"; do
		device=/sys/bus/virtio/devices/$(device_of "$chip")
		# VIRTIO_F_ACCESS_PLATFORM.
		same 1 "$(cut -c 34 "$device/features")" "the feature of $chip"
		! grep -q intel_iommu=on /proc/cmdline || [ -e "$device/../iommu_group" ]
	done
	! grep -q swiotlb=force /proc/cmdline ||
		[ "$(cat "$debugfs/swiotlb/io_tlb_used_hiwater")" -gt 0 ]
}
if grep -qE 'swiotlb=force|intel_iommu=on' /proc/cmdline; then
	check 'detect: the devices get copies, or are behind the IOMMU' platform_between
else
	ktap_test_skip 'detect: nothing is between the devices and memory'
fi
