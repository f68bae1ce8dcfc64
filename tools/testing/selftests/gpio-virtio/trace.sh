# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# Trace events of the driver, as tracefs shows them.

tracing=/sys/kernel/tracing

trace() { # 0|1
	echo "$1" >"$tracing/events/virtio_gpio/enable"
}

# What was traced of a chip since `trace_anew`, without the times. A guest whose clock has no more
# than the resolution of the timer's interrupt sees latencies of 0.
traced() { # CHIP PATTERN
	sed -n "s/^.*: virtio_gpio_\([a-z]*\): $(device_of "$1") \(.*\)/\1 \2/p" "$tracing/trace" |
		sed 's/latency_us=[0-9][0-9]*$/latency/' | grep "$2" || :
}

# The counter is what orders events on several processors if the clock is coarse.
trace_anew() {
	trace 0
	echo counter >"$tracing/trace_clock"
	echo >"$tracing/trace"
	trace 1
}

trace_get() {
	vgpio --device main set lid=1
	trace_anew
	gpioget --as-is --chip "$main" lid
	trace 0
	vgpio --device main set lid=0
	gpioget --as-is --chip "$main" lid
	expect 'request gpio=2 type=get_value value=0
response gpio=2 type=get_value ret=1 latency' traced "$main" get_value
}

trace_latency() {
	local latency

	trace_anew
	gpioget --as-is --chip "$main" lid
	trace 0
	latency=$(sed -n 's/.*type=get_value.* latency_us=//p' "$tracing/trace")
	# The wait would have ended after a second.
	[ "$latency" -ge 20000 ]
	[ "$latency" -lt 1000000 ]
}

trace_refused() {
	trace_anew
	refuse 'unable to read GPIO line values\|Input/output error' gpioget --chip "$main" lid
	trace 0
	expect 'response gpio=2 type=get_value ret=-5 latency' traced "$main" response.*get_value
}

trace_edge() {
	trace_anew
	monitor mon "$main" --edges rising tamper
	pace mon main tamper=1
	settle
	trace 0
	end mon
	vgpio --device main set tamper=0
	expect 'request gpio=3 type=irq_type value=1
response gpio=3 type=irq_type ret=1 latency
arm gpio=3
event gpio=3 status=valid
arm gpio=3' traced "$main" '^arm\|^event\|irq_type'
}

trace_release() {
	monitor mon "$main" tamper
	trace_anew
	end mon
	await state_has main tamper unused
	trace 0
	expect 'request gpio=3 type=irq_type value=0
request gpio=3 type=set_direction value=0' traced "$main" ^request
}

# So many requests without an answer that only a reset can help.
trace_reset() {
	trace_anew
	for _ in 1 2; do
		refuse 'unable to read GPIO line values' gpioget --chip "$main" 0 1 2 3 4 5 6 7
	done
	await grep -q virtio_gpio_reset "$tracing/trace"
	trace 0
	expect 16 grep -c 'request:.* type=get_value' "$tracing/trace"
	expect '' traced "$main" response.*get_value
	expect 'reset attempt=1' traced "$main" ^reset
}

# The driver in C has neither such functions nor trace events.
if grep -q 'gpio_virtio.*VirtioGpio' /proc/kallsyms; then
	check 'trace: a request, its response with the value, and nothing while disabled' trace_get
	check 'trace: the latency of a device that takes 20 ms' \
		with_fault main delay=20ms,type=get-value trace_latency
	check 'trace: the error of a request that the device refuses' \
		with_fault main status=err,type=get-value trace_refused
	check 'trace: an edge: type, buffer, event, buffer' trace_edge
	check 'trace: messages whose answers are not waited for' trace_release
	check 'trace: requests without a response, and the reset of the device' \
		with_fault main silent,type=get-value trace_reset
else
	for _ in $(seq 6); do
		ktap_test_skip 'trace: the driver has no trace events'
	done
fi
