# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# The driver is unbound and bound, COUNT times, while lines are in use.

LIMIT=$((120 + COUNT * 10))
device=$(device_of "$main")

rebind() {
	echo "$device" >"$driver/unbind"
	echo "$device" >"$driver/bind"
}

check "rebind: $COUNT times unbound and bound under load, nothing is left behind" \
	nothing_left_behind rebind

works() {
	find_chips
	vgpio --device main set 0=0 4=0
	lines_work
	drive relay "$main" relay=1
	expect '"relay"=active' vgpio --device main get relay
}
check 'rebind: lines work afterwards' works
check 'rebind: no warning, bug, oops, or complaint of a checker' no_splat_while_chips_go
