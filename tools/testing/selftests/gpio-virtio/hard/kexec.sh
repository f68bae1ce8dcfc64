# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# The kernel is replaced by the same one (kexec), COUNT times, with lines in use and requests in
# flight. In between runs a kernel without drivers of transports, which cannot reset the device.
# Each kernel runs this from the beginning, with a plan of its own.
# KEXECS tells how many were replaced: a parameter of the kernel, which init gets as a variable.

LIMIT=60
kexecs=${KEXECS:-0}
without_drivers='initcall_blacklist=virtio_pci_driver_init,virtio_mmio_init'

# Starts another kernel. Does not return.
replace() { # PARAMETERS
	kexec -s -l /bzImage --initrd=/tmp/initrd \
		--command-line="$(sed 's/ KEXECS=.*//' /proc/cmdline) $1"
	kexec -e
}

works() {
	vgpio --device main set 0=0 3=0 4=0
	lines_work
	drive relay "$main" relay=1
	expect '"relay"=active' vgpio --device main get relay
}
replace_in_use() {
	local stuck
	stuck=$(($(stat main faults) + 2))

	drive relay "$main" relay=1
	monitor mon "$main" tamper
	spawn churn ./gpio-line-churn 8 "$LIMIT" 0 4 5
	await has_lines churn 3
	host start load vgpio --device main toggle --count 10000000 --interval 2ms 0 3 4
	vgpio --device main fault set silent,type=get-value,line=lid \
		silent,type=get-value,line=buzzer
	spawn lid gpioget --chip "$main" lid
	spawn buzzer gpioget --chip "$main" buzzer
	await are_stuck "$stuck"
	state_has main relay output
	state_has main tamper irq=both
	replace "KEXECS=$((kexecs + 1)) $without_drivers"
}
are_stuck() { # FAULTS
	[ "$(stat main faults)" -ge "$1" ]
}

was_reset() {
	fails ls /sys/bus/virtio/devices/*
	state_has main relay unused
	state_has main tamper unused
}
replace_at_rest() {
	host stop load || :
	vgpio fault clear
	replace "KEXECS=$kexecs"
}

if grep -q initcall_blacklist /proc/cmdline; then
	name='the device was reset before the next kernel' function=was_reset next=replace_at_rest
else
	name='requests and events work' function=works next=replace_in_use
	[ "$kexecs" -lt "$COUNT" ] || next=
fi
check "kexec: $name, after $kexecs" "$function"

if [ -n "$next" ]; then
	# The file system that this kernel was given is the next one's, too.
	(cd / && find . -xdev | cpio -o -H newc) >/tmp/initrd 2>/dev/null
	bounded "$LIMIT" "$next" >"$tmp/log" 2>&1 || :
	sed 's/^/# /' "$tmp/log"
	ktap_exit_fail_msg "this kernel is still there"
fi
