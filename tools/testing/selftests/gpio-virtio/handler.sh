# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# A handler in hard interrupt context that uses the interrupt's own controls, which a driver
# that sleeps there does not survive.

level_hard() {
	load_consumer
	# A handler that does nothing about a level is called until the line goes low.
	echo 3 >"$consumer/limit"
	consume "$main" 2 high hard
	strike 2=1 3
	settle
	expect 3 consumer_count
	vgpio --device main set 2=0
	echo 1 >"$consumer/enabled"
	settle
	expect 3 consumer_count
	echo 0 >"$consumer/limit"
	released 2
}
check 'interrupt: a handler disables its own interrupt (disable_irq_nosync)' level_hard

check 'log: no complaint about that' no_splat

consumer_unloads() {
	rmmod gpio_irq_consumer
	[ ! -d "$consumer" ]
}
check 'consumer: the module goes' consumer_unloads
