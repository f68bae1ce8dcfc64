# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# The driver is unbound and bound, also while its devices are in use.

unbind() { # CHIP
	device_of "$1" >"$tmp/unbound"
	cat "$tmp/unbound" >"$driver/unbind"
}

# Binds what was unbound last. Numbers of chips may be others afterwards.
rebind() {
	cat "$tmp/unbound" >"$driver/bind"
	find_chips
}

unbound() {
	drive set "$one" only=1
	end set
	unbind "$one"
	expect '' chip_with 1
	[ ! -e "/dev/$one" ]
	state_has one only unused
	rebind
	[ -c "/dev/$one" ]
	expect 'gpiochip' sh -c "gpioinfo --chip $one only | sed 's/[0-9].*//'"
	vgpio --device one set only=1
	expect '"only"=active' gpioget --chip "$one" only
	monitor mon "$one" only
	pace mon one only=0 only=1
	expect '0 falling 0 rising' events mon
}
check 'unbind: the chip goes; bind: it is back and works, interrupts too' unbound

unbound_in_use() {
	monitor mon "$one" only
	state_has one only armed
	start=$(seconds)
	unbind "$one"
	[ $(($(seconds) - start)) -lt 5 ]
	# Whether it notices or not, it does no harm and can be ended.
	end mon
	state_has one only unused
	rebind
	monitor mon "$one" only
	pace mon one only=0 only=1
	expect '0 falling 0 rising' events mon
}
check 'D12: unbind while gpiomon runs: both end in time, and a new one works' unbound_in_use

monitor_notices() {
	monitor mon "$one" only
	unbind "$one"
	await gone mon
	rebind
}
check 'unbind: gpiomon ends by itself' monitor_notices

unbound_while_driven() {
	vgpio --device one set only=0
	drive set "$one" only=1
	expect '"only"=active' vgpio --device one get only
	unbind "$one"
	expect '"only"=inactive' vgpio --device one get only
	end set
	rebind
	expect '"only"=inactive' gpioget --chip "$one" only
}
check 'D12: unbind while gpioset drives a line: the device forgets the line' unbound_while_driven

free_memory=$debugfs/free_memory

# A device that continues until its rings are stopped, with an answer and an event pending.
nothing_written_after_unbind() {
	insmod ./test_modules/free_memory.ko
	vgpio --device main set tamper=0
	monitor mon "$main" tamper
	vgpio --device main fault set deaf delay=2s,type=get-value,line=lid
	spawn stuck gpioget --chip "$main" lid
	await faults_seen main
	late=$(stat main late)
	unbind "$main"
	end mon
	await gone stuck
	echo 1 >"$free_memory/take"
	[ "$(cat "$free_memory/pages")" -gt 1000 ]
	vgpio --device main set tamper=1
	sleep 2
	expect 0 cat "$free_memory/changed"
	# The device had both, and kept them for itself.
	await late_by 2
	rmmod free_memory
	vgpio --device main fault clear
	vgpio --device main set tamper=0
	rebind
	expect '"door"=active' gpioget --chip "$main" door
}
late_by() { # NUMBER
	[ "$(stat main late)" -ge $((late + $1)) ]
}
check 'D12: unbind: what the device answers and tells later changes no memory' \
	nothing_written_after_unbind

unbound_under_fire() {
	monitor mon "$main" 0 2 3 7
	host start watch vgpio --device main toggle --count 500 --interval 1ms 0 2 3 7
	await has_events mon 5
	unbind "$main"
	end mon
	rebind
	host finish watch
	monitor mon "$main" 0
	vgpio --device main set 0=0
	vgpio --device main set 0=1
	await has_events mon 1
	vgpio --device main set 0=0
}
check 'D12: unbind and bind while edges come: nothing breaks' unbound_under_fire

unbound_under_load() {
	spawn load ./gpio-line-stress "/dev/$many" 2 0 1 2 3
	await state_has many 3 output
	unbind "$many"
	await gone load
	rebind
	expect 'line511' sh -c "gpioinfo --chip $many 511 | sed 's/.*\"\(.*\)\".*/\1/'"
}
check 'D12: unbind while four processes drive lines: all end in time' unbound_under_load

# From then on it must not access the rings, whose memory is freed.
both_disabled() { # TIMES
	[ "$(stat one request_queue.disabled)" = "$1" ] &&
		[ "$(stat one event_queue.disabled)" = "$1" ]
}

told_of_the_end() {
	vgpio --device one stats --reset >/dev/null
	monitor mon "$one" only
	state_has one only armed
	unbind "$one"
	both_disabled 1
	vgpio --device one set only=1
	vgpio --device one set only=0
	# What one driver has left out is there for the next one.
	rebind
	both_disabled 1
	expect '"only"=inactive' gpioget --chip "$one" only
	unbind "$one"
	both_disabled 2
	rebind
}

# Drivers free their buffers after a reset, and delete the rings then.
told_of_a_reset() {
	vgpio --device one stats --reset >/dev/null
	insmod ./test_modules/device_shutdown.ko "label=$(device_of "$one")"
	both_disabled 1
	rmmod device_shutdown
	unbind "$one"
	rebind
	expect '"only"=inactive' gpioget --chip "$one" only
}
# How QEMU ends a device is not up to the guest.
if is_uml; then
	check 'D12: unbind: the device is told that its rings end' told_of_the_end
	check 'D12: reset: the device is told that its rings end' told_of_a_reset
else
	ktap_test_skip 'D12: unbind: the device is told that its rings end'
	ktap_test_skip 'D12: reset: the device is told that its rings end'
fi

ten_times() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		unbind "$one"
		rebind
	done
	[ -n "$one" ]
	expect '"only"=inactive' gpioget --chip "$one" only
}
# Kernels that are looked over by checkers take their time.
LIMIT=$((LIMIT * 3))
check 'unbind and bind: 10 times' ten_times
LIMIT=$((LIMIT / 3))

# Who handles the events of the old chip when the new one is there already, see init.
node_stays() {
	kill -STOP "$(pidof mdev)"
	unbind "$one"
	rebind
	node=$(ls -i "/dev/$one")
	kill -CONT "$(pidof mdev)"
	sleep 1
	expect "$node" ls -i "/dev/$one"
}
check 'unbind and bind: the node of the new chip stays when events are handled late' node_stays

# Only a driver that is a module can be unloaded.
is_module() {
	[ -d "$module/holders" ] || [ -e "$module/refcnt" ]
}

autoloaded() {
	# Nothing in the guest names the module: its alias did it, see init.
	[ "$(chip_with 8)" = "$main" ]
	modinfo_alias
}
modinfo_alias() {
	find /lib/modules -name modules.alias -exec grep -q 'virtio:d00000029v.* gpio_virtio' {} +
}

unloaded() {
	modprobe -r gpio_virtio
	[ ! -d "$module" ]
	expect '' gpiodetect
	modprobe gpio_virtio
	find_chips
	[ -n "$main" ] && [ -n "$noirq" ] && [ -n "$unnamed" ] && [ -n "$one" ] && [ -n "$many" ]
	monitor mon "$main" 0
	pace mon main 0=1 0=0
}

unloaded_in_use() {
	monitor mon "$main" 0
	refuse . modprobe -r gpio_virtio
	pace mon main 0=1 0=0
	end mon
}

reloaded() {
	for _ in 1 2 3 4 5; do
		modprobe -r gpio_virtio
		modprobe gpio_virtio
	done
	find_chips
	expect '"door"=active' gpioget --chip "$main" door
}

if is_module; then
	check 'module: it was loaded for the alias of its devices' autoloaded
	check 'module: all chips go with it, and are back and work when it is loaded again' unloaded
	check 'module: it stays while a line is in use' unloaded_in_use
	check 'module: 5 times out and in' reloaded
else
	for _ in $(seq 4); do
		ktap_test_skip 'module: the driver is built in'
	done
fi
