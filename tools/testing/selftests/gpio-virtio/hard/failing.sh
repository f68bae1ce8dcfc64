# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# Each allocation of a task fails once, the first, the second and so on; all of this COUNT
# times. Then all fail that must not sleep, as those of interrupts.

LIMIT=$((300 + COUNT * 300))

# Allocations that may sleep and single pages too, and no stack of each one that fails.
prepare() {
	for kind in failslab fail_page_alloc; do
		echo N >"$debugfs/$kind/ignore-gfp-wait"
		echo 0 >"$debugfs/$kind/verbose"
	done
	echo 0 >"$debugfs/fail_page_alloc/min-order"
}
check 'failing: allocations can be made to fail' prepare

bound() { # CHIP
	local device
	device=$(device_of "$1")
	echo "$device" >"$driver/unbind"
	baseline
	for _ in $(seq "$COUNT"); do
		./gpio-fail-alloc bind "$driver" "$device"
		echo "$device" >"$driver/unbind"
	done
	all_referenced
	nothing_piled_up 50
	echo "$device" >"$driver/bind"
}
check 'failing: bind of 1 line: no memory, clean up, nothing is left behind' bound "$one"
check 'failing: bind of 512 lines' bound "$many"

requested() {
	find_chips
	# The interrupt that the line is mapped to stays.
	./gpio-fail-alloc request "/dev/$main" 3
	baseline
	for _ in $(seq "$COUNT"); do
		./gpio-fail-alloc request "/dev/$main" 3
	done
	nothing_leaked 50
	state_has main tamper unused
	state_lacks main tamper armed
}
check 'failing: output, input and interrupt of a line' requested

# 2 seconds of edges; nothing is asked of the host meanwhile, as its answers take memory.
starved() {
	local merged
	merged=$(stat main edges_merged)
	monitor mon "$main" tamper
	host start watch vgpio --device main toggle --count 500 --interval 4ms tamper
	for kind in failslab fail_page_alloc; do
		echo Y >"$debugfs/$kind/ignore-gfp-wait"
		echo -1 >"$debugfs/$kind/times"
		echo 100 >"$debugfs/$kind/probability"
	done
	sleep 3 || :
	for kind in failslab fail_page_alloc; do
		echo 0 >"$debugfs/$kind/probability"
	done
	host finish watch
	await all_reported main "$merged" 500 mon
}
check 'failing: all allocations of interrupts fail, no edge is lost' starved

works() {
	find_chips
	vgpio --device main set tamper=0
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0
	expect '3 rising 3 falling' events mon
	drive relay "$main" relay=1
	expect '"relay"=active' vgpio --device main get relay
	expect '"511"=inactive' gpioget --chip "$many" 511
}
check 'failing: lines work afterwards' works
check 'failing: no warning, bug, oops, or complaint of a checker' no_splat
