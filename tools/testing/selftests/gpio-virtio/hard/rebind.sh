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

rebound() {
	rebind
	baseline
	under_load rebind
	# Without the interrupts that lines were mapped to.
	rebind
	nothing_leaked "$COUNT" 3
}
check "rebind: $COUNT times unbound and bound under load, nothing is left behind" rebound

works() {
	find_chips
	vgpio --device main set 0=0 4=0
	expect '"door"=active' gpioget --chip "$main" door
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0
	expect '3 rising 3 falling' events mon
	drive relay "$main" relay=1
	expect '"relay"=active' vgpio --device main get relay
}
check 'rebind: lines work afterwards' works
check 'rebind: no warning, bug, oops, or complaint of a checker' no_splat_while_chips_go
