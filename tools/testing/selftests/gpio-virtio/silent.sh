# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# Devices that do not answer. The timeout of the driver is set to one second.

no_value() {
	vgpio --device main fault set silent,type=get-value,line=lid
	start=$(seconds)
	refuse 'unable to read GPIO line values' gpioget --chip "$main" lid
	[ $(($(seconds) - start)) -lt 5 ]
	vgpio --device main fault clear
	expect '"lid"=inactive' gpioget --chip "$main" lid
}
check 'silence: gpioget fails within the timeout, and works afterwards' no_value

no_direction() {
	vgpio --device main fault set silent,type=set-direction,line=lid
	ends refuse 'unable to request lines' gpioset --chip "$main" lid=1
	ends refuse 'unable to request lines' gpiomon --chip "$main" lid
	vgpio --device main fault clear
	drive set "$main" lid=1
	expect '"lid"=active' vgpio --device main get lid
}
check 'silence: gpioset and gpiomon fail within the timeout, and work afterwards' no_direction

other_lines() {
	vgpio --device main fault set silent,type=get-value,line=lid
	monitor mon "$main" tamper
	spawn stuck gpioget --chip "$main" lid
	await faults_seen main
	expect '"door"=active' gpioget --chip "$main" door
	pace mon main tamper=1 tamper=0
	await gone stuck
	vgpio --device main fault clear
}
check 'silence: other lines do not wait' other_lines

late_answer() {
	# The wait ends after 1.0 to 1.5 seconds.
	vgpio --device main fault set delay=2500ms,type=get-value,line=lid
	vgpio --device main set lid=1
	refuse 'unable to read GPIO line values' gpioget --chip "$main" lid
	vgpio --device main fault clear
	# The driver drops late answers.
	sleep 2
	vgpio --device main set lid=0
	expect '"lid"=inactive' gpioget --chip "$main" lid
}
check 'silence: an answer after the timeout is not taken for that of another request' late_answer

all_silent() {
	vgpio --device one fault set silent
	spawn stuck gpioget --chip "$one" only
	await faults_seen one
	device=$(device_of "$one")
	ends sh -c "echo $device >$driver/unbind"
	await gone stuck
	vgpio --device one fault clear
	echo "$device" >"$driver/bind"
	expect '"only"=inactive' gpioget only
}
check 'silence: unbind ends, and so does who waits for the device' all_silent

paused() {
	monitor mon "$main" tamper
	host vgpio-pause
	# Several, to check that the driver does not wait the full time for each.
	ends refuse 'unable to read GPIO line values' gpioget --chip "$main" door
	ends refuse 'unable to request lines' gpioset --chip "$main" relay=1
	ends refuse . gpiomon --chip "$main" lid
	ends refuse . gpioget --chip "$many" 511
	host vgpio-resume
	await expect '"door"=active' gpioget --chip "$main" door
	pace mon main tamper=1 tamper=0
	expect '3 rising 3 falling' events mon
}
check 'stopped vgpio: requests time out; all works when it continues' paused
