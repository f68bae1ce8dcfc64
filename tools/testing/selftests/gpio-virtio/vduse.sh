# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# A chip without a virtual machine: the device is a process of the guest itself, by VDUSE.

panel=vduse=panel,lines=6,names=key:led:lamp

# Nothing is left.
stopped() {
	end serve
	absent 6
	[ ! -e /dev/vduse/panel ]
	[ ! -e /sys/bus/vdpa/devices/panel ]
	fails grep cannot "$tmp/serve"
}

# Requests and events work.
chip_works() {
	inside set key=1
	expect '"key"=active' gpioget --chip "$chip" key
	drive set "$chip" led=1
	expect '"led"=active' inside get led
	end set
	monitor mon "$chip" key
	inside set key=0
	await has_events mon 1
	inside set key=1
	await has_events mon 2
	expect '0 falling 0 rising' events mon
	end mon
}

names() {
	gpioinfo --chip "$chip" | grep -o '"[^"]*"' | tr '\n' ' '
}

process_is_a_chip() {
	serve --device $panel
	expect '"key" "led" "lamp" ' names
	inside detect | grep -qx 'panel \[vduse=panel\] (6 lines) connected'
	spawn watch /bin/vgpio --control "$control" mon --banner --num-events 1 led
	await has_lines watch 1
	chip_works
	await gone watch
	grep -q 'rising.*"led"=active.*guest' "$tmp/watch"
	expect '"led"=inactive' inside get led
	stopped
}

no_interrupts() {
	serve --device $panel,irq=off,queue-size=16
	inside set key=1
	expect '"key"=active' gpioget --chip "$chip" key
	drive set "$chip" led=1
	expect '"led"=active' inside get led
	refuse . gpiomon --chip "$chip" key
	stopped
}

edges() {
	serve --device $panel
	inside wire led key
	monitor mon "$chip" key
	drive set "$chip" --toggle 10ms,0 led=1
	await has_events mon 2
	expect '0 rising 0 falling' events mon
	end set
	end mon
	inside wire led
	monitor mon "$chip" key
	# No more at a time than gpiolib keeps for who does not read them.
	for total in 16 32 48; do
		inside swing --count 16 key
		await has_events mon "$total"
	done
	settle
	same 48 "$(count_events mon)" 'edges reported'
	stopped
}

# What is driven on one chip is an input of another one, in both directions.
wired_chips() {
	serve --device $panel --device vduse=other,lines=7,names=out:in
	other=$(chip_with 7)
	inside wire out key
	inside wire led in
	inside info out | grep -q ' wire=panel:0$'
	monitor mon "$chip" --format '%S %o %E' key
	drive set "$other" --toggle "$(printf '20ms,%.0s' $(seq 19))0" out=1
	await seen_or_merged 20
	settle
	# With those that the wires began with.
	same 21 "$(of_panel wire_changes)" 'levels that came over the wire'
	seen_or_merged 20
	sed 1d "$tmp/mon" | awk '
		$1 <= last || $2 != 0 { print "not after the one before: " $0; exit 1 }
		NR == 1 { first = $1 }
		{ last = $1 }
		END { exit !(last - first > 0.3) }'
	end mon
	end set

	drive set "$chip" led=1
	expect '"in"=active' gpioget --chip "$other" in
	inside wire led
	expect '"in"=inactive' gpioget --chip "$other" in
	end set

	# The chip goes while its line is driven.
	drive set "$other" out=1
	await reads active key
	inside --device other disconnect
	await reads inactive key
	await there 7
	drive again "$(chip_with 7)" out=1
	await reads active key
	end serve
	absent 6
	absent 7
}

reads() { # active|inactive LINE
	[ "$(gpioget --chip "$chip" "$2")" = "\"$2\"=$1" ]
}

faults_strike() {
	serve --device $panel
	inside fault set silent,type=get-value
	refuse 'unable to read GPIO line values' gpioget --chip "$chip" key
	inside fault clear
	chip_works
	stopped
}

unplugged() {
	serve --device $panel --device vduse=other,lines=7
	other=$(chip_with 7)
	monitor mon "$chip" key
	inside --device panel disconnect
	await gone mon
	await there 6
	[ "$(chip_with 7)" = "$other" ]
	chip=$(chip_with 6)
	chip_works
	end serve
	absent 6
	absent 7
}

rebound() {
	serve --device $panel
	device=$(device_of "$chip")
	for _ in 1 2 3; do
		echo "$device" >"$driver/unbind"
		absent 6
		echo "$device" >"$driver/bind"
	done
	chip=$(chip_with 6)
	chip_works
	stopped
}

# The device is gone, its chip is not. What waits for it can be killed, and what does not stays
# within the timeout of the driver.
killed_process() {
	serve --device $panel
	inside fault set silent,type=get-value
	monitor mon "$chip" lamp
	spawn stuck gpioget --chip "$chip" key
	await struck
	end serve KILL
	kill -KILL "$(cat "$tmp/stuck.pid")"
	status=0
	wait "$(cat "$tmp/stuck.pid")" || status=$?
	same 137 "$status" 'status of gpioget'
	there 6
	ends refuse . gpioget --chip "$chip" key
	serve --device $panel
	grep 'panel was left behind by a process that is gone, and is replaced' "$tmp/serve"
	await gone mon
	chip_works
	end serve
	absent 6
	# While the driver is being bound, or a little later.
	for delay in 0 0.01 0.02 0.05 0.1; do
		spawn serve /bin/vgpio --control "$control" serve --device $panel
		sleep "$delay"
		end serve KILL
	done
	# With other lines, and while nothing waits.
	serve --device $panel
	end serve KILL
	serve --device vduse=panel,lines=6,names=one:two,irq=off
	inside set two=1
	expect '"two"=active' gpioget --chip "$chip" two
	end serve
	absent 6
}
struck() {
	inside stats | grep -q 'faults: [1-9]'
}

# The reset of a device that does not answer can be killed, too.
killed_unbind() {
	serve --device $panel
	device=$(device_of "$chip")
	end serve KILL
	spawn unbind sh -c "echo $device >$driver/unbind"
	sleep 0.5
	fails gone unbind
	end unbind KILL
	absent 6
	serve --device $panel
	chip_works
	end serve
	absent 6
}

# A command fails, and says why in one line.
refused() { # PATTERN COMMAND...
	local pattern="$1" status=0
	shift

	timeout 10 "$@" >"$tmp/message" 2>&1 || status=$?
	cat "$tmp/message"
	same 1 "$status" 'status'
	same 1 "$(wc -l <"$tmp/message")" 'lines of the message'
	grep -q "$pattern" "$tmp/message"
}

mistakes() {
	set -- /bin/vgpio --control "$tmp/second.sock" serve --device $panel
	serve --device $panel
	refused 'panel is taken: another process serves it' "$@"
	chip_works
	stopped

	mount -t tmpfs none /dev/vduse
	refused 'no /dev/vduse/control: load the module vduse' "$@"
	umount /dev/vduse

	echo 0 >/sys/bus/vdpa/drivers_autoprobe
	refused 'panel has no driver: load the module virtio_vdpa' "$@"
	echo 1 >/sys/bus/vdpa/drivers_autoprobe
	[ ! -e /dev/vduse/panel ]
}

# As a user who is not root, with no rule of udev, and with one but without the capability.
not_root() {
	grep -q '^user:' /etc/passwd || echo 'user:x:1000:1000::/:/bin/sh' >>/etc/passwd
	set -- su user -c "/bin/vgpio --control $tmp/user/socket serve --device $panel"
	rm -rf "$tmp/user"
	mkdir "$tmp/user"
	chown 1000:1000 "$tmp/user"
	chmod 755 "$tmp"
	refused 'no permission for /dev/vduse/control' "$@"
	chmod 666 /dev/vduse/control
	refused 'cannot open /dev/vduse/panel' "$@"
	spawn udev sh -c 'until chmod 666 /dev/vduse/panel; do sleep 0.01; done'
	refused 'cannot add panel to the vDPA bus: this needs CAP_NET_ADMIN' "$@"
	chmod 600 /dev/vduse/control
	[ ! -e /dev/vduse/panel ]
}

reason=$(nothing_inside)
if [ -z "$reason" ]; then
	check 'vduse: a process is a chip, and both see what the other does' process_is_a_chip
	check 'vduse: a device without interrupts' no_interrupts
	check 'vduse: gpiomon sees what gpioset drives on a wired line, and 48 edges' edges
	check 'vduse: gpiomon sees what gpioset drives on another chip of the process' wired_chips
	check 'vduse: requests that are not answered fail in time' faults_strike
	check 'vduse: unbind and bind' rebound
	check 'vduse: unplugged and plugged in again, with another device beside' unplugged
	check 'vduse: killed: gpioget can be killed, and the next process makes the chip again' \
		killed_process
	check 'vduse: killed: so can be who unbinds the driver' killed_unbind
	check 'vduse: mistakes are told in one line' mistakes
	check 'vduse: what a user may not do is told' not_root
	check 'vduse: no warning, bug, oops, or complaint of a checker' no_splat
else
	for _ in $(seq 12); do
		ktap_test_skip "vduse: $reason"
	done
fi
