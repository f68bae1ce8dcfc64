# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# Devices that do not answer. The timeout of the driver is set to one second.

# A command ends, one way or the other, in less than 5 seconds.
ends() { # COMMAND...
	local start status=0
	start=$(seconds)
	"$@" || status=$?
	[ $(($(seconds) - start)) -lt 5 ]
	echo "$*: status $status"
}

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
	vgpio --device main fault set delay=1500ms,type=get-value,line=lid
	vgpio --device main set lid=1
	refuse 'unable to read GPIO line values' gpioget --chip "$main" lid
	vgpio --device main fault clear
	# What comes late belongs to nobody.
	sleep 1
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

restarted() {
	monitor mon "$main" tamper
	host vgpio-restart
	if [ -d /sys/devices/virtio-uml-cmdline ]; then
		# User-Mode Linux does not connect again: this is the loss of a device.
		ends refuse . gpioget --chip "$main" door
		ends refuse . gpiomon --chip "$main" tamper
		end mon
		return
	fi
	await expect '"door"=active' gpioget --chip "$main" door
	# The new device knows nothing of the old one's lines: who has one has to ask again.
	end mon
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0
}
check 'restart: a new vgpio works, or where there is no way back requests fail at once' restarted

killed_device() {
	host vgpio-kill
	for chip in "$main" "$many"; do
		ends refuse . gpioget --chip "$chip" 0
		ends refuse . gpioset --chip "$chip" 0=1
	done
	device=$(device_of "$many")
	ends sh -c "echo $device >$driver/unbind"
	[ ! -e "/dev/$many" ]
}
check 'dead device: requests fail in time, and the driver can be unbound' killed_device
