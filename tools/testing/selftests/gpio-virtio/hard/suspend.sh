# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# The system sleeps, COUNT times, with lines in use: an output, and edges to watch. The
# device is reset for it and forgets everything; what the lines were has to be there again.

LIMIT=$((120 + COUNT * 60))
suspend=/sys/module/suspend/parameters

# Devices only: all of the work of the driver, none of the sleep.
test_suspend() {
	echo devices >/sys/power/pm_test
	echo 0 >"$suspend/pm_test_delay"
	echo freeze >/sys/power/state
	echo none >/sys/power/pm_test
}

# Frozen as for the snapshot of a hibernation, and thawed again.
test_hibernation() {
	echo devices >/sys/power/pm_test
	echo 0 >/sys/module/hibernate/parameters/pm_test_delay
	echo disk >/sys/power/state
	echo none >/sys/power/pm_test
}

# Sleeps until the host wakes us.
sleep_soundly() {
	[ ! -e "/sys/class/tty/$CHANNEL/power/wakeup" ] ||
		echo enabled >"/sys/class/tty/$CHANNEL/power/wakeup"
	host wake 700
	echo freeze >/sys/power/state
}

# The lines of the device are those of before.
as_before() { # VALUE
	expect "output" line_word main relay output
	expect "\"relay\"=$1" vgpio --device main get relay
	expect "irq=both" line_word main tamper irq=both
	expect "irq=both" line_word main lid irq=both
	await state_has main tamper armed
}

line_word() { # DEVICE LINE WORD
	line_state "$1" "$2" | tr ' ' '\n' | grep -x -- "$3"
}

cycles() { # TIMES SLEEP
	for _ in $(seq "$1"); do
		"$2"
		as_before active
		# No edge between this and the next sleep is lost.
		pace mon main tamper=1 lid=1 tamper=0 lid=0
	done
}

slept() { # SLEEP
	drive relay "$main" relay=1
	monitor mon "$main" tamper lid
	cycles 2 "$1"
	baseline
	: >"$tmp/mon"
	cycles "$COUNT" "$1"
	same "$((4 * COUNT))" "$(count_events mon)" events
	nothing_leaked "$COUNT"
	# The same processes still have their lines.
	end relay
	end mon
	await state_has main relay unused
	await state_has main tamper unused
}
check "suspend: devices only, $COUNT times: output and 2 watched lines as before" slept test_suspend
check "suspend: s2idle, $COUNT times: output and 2 watched lines as before" slept sleep_soundly

check "suspend: devices only, $COUNT times under load" under_load test_suspend

# User-Mode Linux does not hibernate.
if grep -q disk /sys/power/state; then
	check "hibernation: frozen and thawed, $COUNT times: output and 2 watched lines as before" \
		slept test_hibernation
	check "hibernation: frozen and thawed, $COUNT times under load" under_load test_hibernation
else
	for _ in 1 2; do
		ktap_test_skip 'hibernation: this kernel does not hibernate'
	done
fi

# The host changes a line meanwhile: that edge is lost, the line is not.
changed_meanwhile() {
	monitor mon "$main" tamper
	host start watch vgpio --device main toggle --count 1 tamper
	sleep_soundly
	host finish watch
	vgpio --device main set tamper=0
	settle
	pace mon main tamper=1 tamper=0
}
check 'suspend: a line that changes meanwhile works afterwards' changed_meanwhile
check 'suspend: no warning, bug, oops, or complaint of a checker' no_splat
