# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# The smallest and the largest device, and names of all kinds. The devices are those of
# limits in scripts/check-hard.

LIMIT=$((120 + COUNT * 20))

chip_of() { # LINES
	chip=$(chip_with "$1")
	[ -n "$chip" ]
}

used() { # DEVICE LINES LAST
	chip_of "$2"
	vgpio --device "$1" set 0=1 "$3=1"
	expect 1 value 0
	expect 1 value "$3"
	vgpio --device "$1" set 0=0 "$3=0"
	monitor mon "$chip" "$3"
	pace mon "$1" "$3=1" "$3=0"
	end mon
	drive set "$chip" "$3=1"
	expect 1 vgpio --device "$1" get --numeric "$3"
}
value() { # LINE
	gpioget --numeric --chip "$chip" "$1"
}
check 'limits: 1 line: is read, watched and driven' used one 1 0
check 'limits: 65535 lines: the first and the last are read, watched and driven' \
	used largest 65535 65534

names() {
	gpioinfo --chip "$chip" | sed -n 's/^\tline *[0-9]*:\t\("[^"]*"\|unnamed\).*/\1/p'
}

largest_listed() {
	chip_of 65535
	expect 65535 count names
}
count() { # COMMAND...
	"$@" | wc -l
}
check 'limits: 65535 lines: gpioinfo lists them all' largest_listed

largest_rebound() {
	local device start
	chip_of 65535
	device=$(device_of "$chip")
	# Without the interrupts that lines were mapped to.
	echo "$device" >"$driver/unbind"
	echo "$device" >"$driver/bind"
	baseline
	for _ in $(seq "$COUNT"); do
		echo "$device" >"$driver/unbind"
		start=$(seconds)
		echo "$device" >"$driver/bind"
		echo "bound within $(($(seconds) - start + 1)) s"
	done
	chip_of 65535
	nothing_leaked "$COUNT"
}
check "limits: 65535 lines: $COUNT times unbound and bound, nothing is left behind" \
	largest_rebound

long_names() {
	chip_of 4096
	names >"$tmp/names"
	same 4096 "$(sort -u "$tmp/names" | wc -l)" names
	same 0 "$(grep -c unnamed "$tmp/names")" 'lines without a name'
}
check 'names: 4096 of 800 characters each, close to the limit of 4 MiB' long_names

too_long_names() {
	chip_of 4095
	expect unnamed unique names
}
unique() { # COMMAND...
	"$@" | sort -u
}
check 'names: more than 4 MiB are left out, the lines work' too_long_names

few_names() {
	chip_of 5
	expect '"first" unnamed "with a blank" unnamed "last" ' words names
}
words() { # COMMAND...
	"$@" | tr '\n' ' '
}
check 'names: one with a blank, and lines without a name between others' few_names
check 'limits: no warning, bug, oops, or complaint of a checker' no_splat
