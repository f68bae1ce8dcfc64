# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# Devices that refuse, are slow, or go away.

refused_read() {
	refuse 'unable to read GPIO line values\|Input/output error' gpioget --chip "$main" lid
}
check 'fault: a value that the device refuses to tell is an error' \
	with_fault main status=err,type=get-value refused_read

refused_output() {
	refuse 'unable to request lines' gpioset --chip "$main" lid=1
}
check 'fault: a direction that the device refuses is an error' \
	with_fault main status=err,type=set-direction refused_output

works_again() {
	vgpio --device main set lid=1
	expect '"lid"=active' gpioget --chip "$main" lid
	vgpio --device main set lid=0
	drive set "$main" lid=1
	expect '"lid"=active' vgpio --device main get lid
}
check 'fault: afterwards the line works as before' works_again

slow_line() {
	spawn slow gpioget --chip "$main" lid
	await faults_seen main
	expect '"door"=active' gpioget --chip "$main" door
	await gone slow
	expect '"lid"=inactive' cat "$tmp/slow"
}
check 'D2: fault: a slow answer for one line arrives, others do not wait' \
	with_fault main delay=600ms,type=get-value,line=lid slow_line

slow_device() {
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0
	expect '3 rising 3 falling' events mon
	drive set "$main" relay=1
	expect '"relay"=active' vgpio --device main get relay
	end set
}
check 'fault: a device that takes 20 ms for each answer works' \
	with_fault main delay=20ms slow_device

out_of_order() {
	# shellcheck disable=SC2046
	gpioget --numeric --chip "$many" $(seq 448 511 | tr '\n' ' ') >"$tmp/one"
	vgpio --device many fault clear
	# shellcheck disable=SC2046
	expect "$(cat "$tmp/one")" gpioget --numeric --chip "$many" $(seq 448 511 | tr '\n' ' ')
}
check 'D2: fault: answers for 64 lines in another order' with_fault many reorder out_of_order

late_buffer() {
	for _ in 1 2 3; do
		monitor mon "$main" tamper
		pace mon main tamper=1
		pace mon main tamper=0
		end mon
	done
}
check 'V4: fault: the event buffer of the last interrupt comes back late' \
	with_fault main hold-irq-buffer=150ms late_buffer
