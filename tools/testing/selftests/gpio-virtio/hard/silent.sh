# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# A device that does not answer, COUNT times: no task hangs.

LIMIT=$((60 + COUNT * 30))
timeout_ms=$(sed -n 's/.*gpio_virtio.timeout_ms=\([0-9]*\).*/\1/p' /proc/cmdline)

milliseconds() {
	awk '{ print int($1 * 1000) }' /proc/uptime
}

timed_out() {
	local start took
	vgpio --device main fault set silent
	for _ in $(seq "$COUNT"); do
		start=$(milliseconds)
		refuse 'Connection timed out' gpioget --chip "$main" lid
		took=$(($(milliseconds) - start))
		echo "failed after $took ms"
		# One wait for the request, and one for giving the line back.
		[ "$took" -lt $((2 * timeout_ms + 1000)) ]
	done
	vgpio --device main fault clear
	answered
}

# The device may have kept so many messages that there is no room for others of the line, until
# something times out when four timeouts have passed.
answered() {
	local start
	start=$(milliseconds)
	until expect '"lid"=inactive' gpioget --chip "$main" lid; do
		[ $(($(milliseconds) - start)) -lt $((6 * timeout_ms)) ]
		sleep 0.1
	done
}

check 'silent: gpioget ends with a timeout error' timed_out

# How long it takes to kill a task that is not stuck, and to measure that.
kill_idle() {
	local start
	spawn idle sleep 60
	start=$(milliseconds)
	end idle KILL
	echo $(($(milliseconds) - start))
}

killed() {
	local start took idle
	for _ in $(seq "$COUNT"); do
		idle=$(kill_idle)
		vgpio --device main stats --reset
		vgpio --device main fault set silent
		spawn stuck gpioget --chip "$main" lid
		await faults_seen main
		start=$(milliseconds)
		end stuck KILL
		took=$(($(milliseconds) - start))
		echo "ended $took ms after the signal"
		# Most of it is the time of the commands that measure it, more so on a busy host.
		[ "$took" -lt $((timeout_ms / 2 + idle)) ]
		vgpio --device main fault clear
		# So that the next wait has the full time.
		answered
	done
}
check 'silent: gpioget is killed at once' killed

# 4 tasks with 16 requests each.
unbound() {
	local device start took n
	device=$(device_of "$many")

	for _ in $(seq "$COUNT"); do
		vgpio --device many fault set silent,type=get-value
		vgpio --device many stats --reset
		for n in 0 16 32 48; do
			# shellcheck disable=SC2046
			spawn "stuck$n" gpioget --chip "$many" $(seq "$n" $((n + 15)))
		done
		await in_flight many 64
		start=$(milliseconds)
		echo "$device" >"$driver/unbind"
		took=$(($(milliseconds) - start))
		echo "unbound after $took ms"
		[ "$took" -lt $((timeout_ms + 1000)) ]
		for n in 0 16 32 48; do
			await gone "stuck$n"
		done
		vgpio --device many fault clear
		echo "$device" >"$driver/bind"
	done
}
in_flight() { # DEVICE REQUESTS
	[ "$(stat "$1" requests.get_value)" -ge "$2" ]
}
check "silent: with 64 requests in flight unbind ends within the timeout and a second" unbound

works() {
	find_chips
	expect '"511"=inactive' gpioget --chip "$many" 511
	monitor mon "$many" 0
	pace mon many 0=1 0=0
}
check 'silent: the device works afterwards' works
check 'silent: no warning, bug, oops, or complaint of a checker' no_splat
