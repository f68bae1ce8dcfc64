# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# What the kernel has had to say meanwhile.

check 'log: no warning, bug, oops, or complaint of a checker' no_splat

immutable() {
	dmesg >"$tmp/dmesg"
	! grep 'not an immutable chip' "$tmp/dmesg"
}
check 'log: the interrupt chip is immutable' immutable

# What tests have provoked: the module of consumers.sh is not of the tree, and it and gpioset
# ask there for an interrupt of an output, and for an output with an interrupt.
provoked='gpio_irq_consumer: loading out-of-tree module taints kernel'
provoked="$provoked|tried to flag a GPIO set as output for IRQ"
provoked="$provoked|unable to lock HW IRQ 7 for IRQ"
provoked="$provoked|Failed to request resources for gpio_irq_consumer"
provoked="$provoked|tried to set a GPIO tied to an IRQ as output"
# By trace.sh, which has half of the slots unanswered.
provoked="$provoked|resetting the device: it does not answer"
# By devicetree.sh: i2c-gpio says it of all GPIOs that sleep, and a key for want of interrupts.
provoked="$provoked|Slow GPIO pins might wreak havoc into I2C/SMBus bus timing"
provoked="$provoked|irq: no irq domain found for gpio !"
provoked="$provoked|no-domain: error -6: Unable to determine IRQ# for button #0"

# Messages about GPIO and virtio at level warning or worse.
unprovoked() {
	dmesg -r | grep -E '^<[0-4]>.*(gpio|virtio[0-9])' >"$tmp/dmesg" || :
	grep -v 'not an immutable chip' "$tmp/dmesg" | grep -vE "$provoked" >"$tmp/bad" || :
	sed 's/^/unexpected: /' "$tmp/bad"
	[ ! -s "$tmp/bad" ]
}
check 'log: no error or warning about GPIO or virtio that no test has provoked' unprovoked
