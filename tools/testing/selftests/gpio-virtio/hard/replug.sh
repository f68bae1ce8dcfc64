# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# The device goes and another one comes in its place, COUNT times, while lines are in use: the
# host pulls it, and waits until the guest has let go of it; the guest takes it out; or it
# vanishes without warning. In User-Mode Linux only the guest can do so.

LIMIT=$((120 + COUNT * 30))
# Of the transport: the PCI function, or the platform device.
function=$(basename "$(readlink -f "/sys/bus/virtio/devices/$(device_of "$main")/..")")
pci=/sys/bus/pci/devices

by_host() {
	host unplug main
	await absent 8
	host plug main
	await there 8
}

by_guest() {
	if is_uml; then
		echo "$function" >/sys/bus/platform/drivers/virtio-uml/unbind
		absent 8
		echo "$function" >/sys/bus/platform/drivers/virtio-uml/bind
	else
		echo 1 >"$pci/$function/remove"
		absent 8
		echo 1 >/sys/bus/pci/rescan
	fi
	await there 8
}

# Behind a bridge that forwards to no bus the function does not answer any more, which is how
# a surprise shows. Its registers still do: without them virtio_pci waits 10 seconds for the end
# of the reset, and complains.
vanish() {
	local port
	port=$(basename "$(readlink -f "$pci/$function/..")")

	dd if="$pci/$port/config" of="$tmp/buses" bs=1 skip=25 count=2
	printf '\0\0' | dd of="$pci/$port/config" bs=1 seek=25 conv=notrunc
	echo 1 >"$pci/$function/remove"
	dd if="$tmp/buses" of="$pci/$port/config" bs=1 seek=25 conv=notrunc
}

come_back() {
	echo 1 >/sys/bus/pci/rescan
	await there 8
}

by_surprise() {
	vanish
	come_back
}

replugged() { # HOW
	nothing_left_behind "$1"

	find_chips
	vgpio --device main set 0=0 4=0
	lines_work
}

# A request that the device will never answer does not hold up the end.
surprised_midway() {
	local start
	find_chips
	vgpio --device main fault set silent
	spawn stuck gpioget --chip "$main" lid
	await faults_seen main
	start=$(seconds)
	vanish &
	await gone stuck
	[ $(($(seconds) - start)) -lt 3 ]
	# Before the device is probed again, which would wait for answers.
	vgpio --device main fault clear
	wait "$!"
	come_back
}

check "replug: $COUNT times by the guest under load, nothing is left behind" replugged by_guest
if is_uml; then
	for _ in $(seq 3); do
		ktap_test_skip 'replug: User-Mode Linux lets nothing go by itself'
	done
else
	check "replug: $COUNT times by the host under load, nothing is left behind" \
		replugged by_host
	check "replug: $COUNT times without warning under load, nothing is left behind" \
		replugged by_surprise
	check 'replug: without warning, a request in flight ends at once' surprised_midway
fi
check 'replug: no warning, bug, oops, or complaint of a checker' no_splat_while_chips_go
