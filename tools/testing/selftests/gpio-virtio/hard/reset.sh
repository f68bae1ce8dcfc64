# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# The PCI function of the device is reset under the driver, COUNT times.

LIMIT=$((120 + COUNT * 30))

function=$(readlink -f "/sys/bus/virtio/devices/$(device_of "$main")/..")

reset_function() {
	echo 1 >"$function/reset"
}

survived() {
	drive relay "$main" relay=1
	monitor mon "$main" tamper lid
	baseline
	for _ in $(seq "$COUNT"); do
		reset_function
		expect '"relay"=active' vgpio --device main get relay
		state_has main relay output
		await state_has main tamper armed
		pace mon main tamper=1 lid=1 tamper=0 lid=0
	done
	same "$((4 * COUNT))" "$(count_events mon)" events
	nothing_leaked "$COUNT"
}
check "reset: of the function, $COUNT times: output and 2 watched lines as before" survived

check "reset: of the function, $COUNT times under load" under_load reset_function

afterwards() {
	drive relay "$main" relay=1
	expect '"relay"=active' vgpio --device main get relay
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0
}
check 'reset: lines work afterwards' afterwards
check 'reset: no warning, bug, oops, or complaint of a checker' no_splat
