# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# The daemon that is the device is killed COUNT times, with a request in flight, a line
# driven and a line watched, and is restarted.
#
# A QEMU guest then gets a new device in place of the old one: QEMU 10 does not connect the
# old one again, and ends with a failed assertion if its configuration is read. User-Mode
# Linux keeps the old device, without a driver, and gets another one.

LIMIT=$((120 + COUNT * 60))

replaced() {
	if is_uml; then
		ends sh -c "echo $(device_of "$main") >$driver/unbind"
	else
		ends host unplug main
	fi
	await absent 8
	host plug main
	await there 8
	find_chips
}

death() {
	find_chips
	drive relay "$main" relay=1
	monitor mon "$main" tamper
	vgpio --device main stats --reset
	vgpio --device main fault set silent,type=get-value
	spawn stuck gpioget --chip "$main" lid
	await faults_seen main
	host vgpio-kill
	# Within the timeout, as nothing tells of the death.
	await gone stuck
	ends refuse . gpioget --chip "$main" 0
	host vgpio-start
	replaced
	await gone mon
	end relay
	expect '"door"=active' gpioget --chip "$main" door
}

deaths() {
	baseline
	for _ in $(seq "$COUNT"); do
		death
	done
	# The devices that are kept are as many as they look.
	is_uml || nothing_leaked "$COUNT"
}
check "killed: the daemon, $COUNT times in a request: all end in time, and it is restarted" deaths

works() {
	find_chips
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0
	drive relay "$main" relay=1
	expect '"relay"=active' vgpio --device main get relay
}
check 'killed: the device that came back works' works

# The connection ends while the guest works with the device. What is in flight times out.
loaded() {
	spawn churn ./gpio-line-churn 8 "$LIMIT" 0 2 4 5
	for _ in $(seq "$COUNT"); do
		sleep 0.2
		vgpio --device main disconnect
		sleep 0.2
		find_chips
		replaced
	done
	end churn
	grep requests "$tmp/churn"
	# Nothing but that.
	grep ', use' "$tmp/churn" | grep -v 'Connection timed out' >"$tmp/odd" || :
	cat "$tmp/odd"
	same 0 "$(wc -l <"$tmp/odd")" 'failures of another kind'
}
check "killed: the connection, $COUNT times under load" loaded
check 'killed: the device that came back works under load, too' works

# User-Mode Linux warns of what it reads from a daemon that is gone.
no_splat_of_ours() {
	no_splat_but 'WARNING: .*virtio_uml.c|Trying to free already-free IRQ' \
		'WARNING: .*virtio_uml.c| linereq_release'
}
check 'killed: no warning, bug, oops, or complaint of a checker' no_splat_of_ours
