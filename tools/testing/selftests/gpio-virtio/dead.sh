# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# Death of a device. After this no device works, and transports log errors.

killed_device() {
	host vgpio-kill
	for chip in "$main" "$many"; do
		ends refuse . gpioget --chip "$chip" 0
		ends refuse . gpioset --chip "$chip" 0=1
		ends refuse . gpiomon --chip "$chip" 0
	done
	device=$(device_of "$many")
	ends sh -c "echo $device >$driver/unbind"
	[ ! -e "/dev/$many" ]
}
if [ -d /sys/devices/virtio-uml-cmdline ]; then
	check 'dead vgpio: requests fail in time, and the driver can be unbound' killed_device
else
	ktap_test_skip 'dead vgpio: QEMU 10 does not survive it'
fi
