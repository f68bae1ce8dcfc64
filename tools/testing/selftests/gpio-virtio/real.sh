# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# A device of a process in the guest, most of whose lines are those of two simulated chips: what a
# user of the device does shows on the other side of gpio-sim, and the other way round.

configfs=/sys/kernel/config/gpio-sim

simulate() { # NAME LINES NAMED-LINE
	mkdir "$configfs/$1" "$configfs/$1/bank" "$configfs/$1/bank/line$3"
	echo "$2" >"$configfs/$1/bank/num_lines"
	echo "bank-$1" >"$configfs/$1/bank/label"
	echo "$1-named" >"$configfs/$1/bank/line$3/name"
	echo 1 >"$configfs/$1/live"
}

simulator_gone() { # NAME
	[ -d "$configfs/$1" ] || return 0
	[ "$(cat "$configfs/$1/live")" != 1 ] || echo 0 >"$configfs/$1/live"
	rmdir "$configfs/$1"/bank/line* "$configfs/$1/bank" "$configfs/$1"
}

# A file for a line of a simulated chip.
pin() { # NAME LINE FILE
	local device
	device=/sys/devices/platform/$(cat "$configfs/$1/dev_name")

	echo "$device/$(cat "$configfs/$1/bank/chip_name")/sim_gpio$2/$3"
}

pull() { # NAME LINE up|down
	echo "pull-$3" >"$(pin "$1" "$2" pull)"
}

pin_is() { # NAME LINE VALUE
	[ "$(cat "$(pin "$1" "$2" value)")" = "$3" ]
}

# Who uses lines of a simulated chip.
consumers() { # NAME
	gpioinfo --chip "$(cat "$configfs/$1/bank/chip_name")" |
		sed -n 's/.*consumer="\?\([^ "]*\).*/\1/p' | tr '\n' ' '
}

unused() { # NAME
	[ -z "$(consumers "$1")" ]
}

# Serves a device with five lines of two chips, of one that has no interrupts if OTHER says so, and
# with one that is its own.
serve_lines() { # [OTHER]
	simulator_gone a
	simulator_gone b
	simulate a 10 3
	simulate b 11 4
	cat >"$tmp/lines.toml" <<-END
		[[device]]
		vduse = 'board'
		lines = 6
		names = ['', '', '', '', '', 'own']
		[[device.host-line]]
		from = 'bank-a:1'
		name = 'key'
		only = 'input'
		[[device.host-line]]
		from = '$(cat "$configfs/a/bank/chip_name"):a-named'
		name = 'led'
		only = 'output'
		[[device.host-line]]
		from = '${1:-bank-b:2}'
		name = 'io'
		[[device.host-line]]
		from = 'b-named'
		name = 'slow'
		debounce = '300ms'
		[[device.host-line]]
		from = '/dev/$(cat "$configfs/b/bank/chip_name"):5'
		name = 'pulled'
		bias = 'pull-up'
	END
	serve --config "$tmp/lines.toml"
}

lines_given_back() {
	end serve
	absent 6
	unused a
	unused b
	simulator_gone a
	simulator_gone b
}

real_values() {
	serve_lines
	expect '"key" "led" "io" "slow" "pulled" "own" ' names_of "$chip"
	unused a
	expect '"key"=inactive' gpioget --chip "$chip" key
	pull a 1 up
	expect '"key"=active' gpioget --chip "$chip" key
	await unused a

	pin_is a 3 0
	drive set "$chip" led=1
	pin_is a 3 1
	expect 'vgpio:board ' consumers a
	unused b
	end set
	await unused a

	drive set "$chip" io=1
	pin_is b 2 1
	end set
	pull b 2 down
	expect '"io"=inactive' gpioget --chip "$chip" io

	inside set own=1
	expect '"own"=active' gpioget --chip "$chip" own
	lines_given_back
}

real_edges() {
	serve_lines
	spawn watch /bin/vgpio --control "$control" mon --banner key
	await has_lines watch 1
	monitor mon "$chip" key io
	expect 'vgpio:board ' consumers a
	for round in 1 2 3 4; do
		pull a 1 up
		await has_events mon $((3 * round - 2))
		pull b 2 "$([ $((round % 2)) = 1 ] && echo up || echo down)"
		await has_events mon $((3 * round - 1))
		pull a 1 down
		await has_events mon $((3 * round))
	done
	same 4 "$(grep -c '^0 rising' "$tmp/mon")" 'rising edges of one line'
	same 4 "$(grep -c '^0 falling' "$tmp/mon")" 'falling edges of one line'
	same 4 "$(grep -c '^2 ' "$tmp/mon")" 'edges of the other line'
	await has_lines watch 9
	same 8 "$(grep -c '"key"=[a-z]*	host' "$tmp/watch")" 'edges that the host has seen'
	end mon
	await unused a
	await unused b
	# Without an interrupt there are none.
	monitor mon "$chip" --edges falling key
	pull a 1 up
	settle
	pull a 1 down
	await has_events mon 1
	expect '0 falling' events mon
	end mon
	lines_given_back
}

real_options() {
	serve_lines
	pull b 5 down
	expect '"pulled"=active' gpioget --chip "$chip" pulled
	[ "$(cat "$(pin b 5 pull)")" = pull-up ]

	monitor mon "$chip" slow
	bounces=$(pin b 4 pull)
	for _ in 1 2 3 4 5; do
		echo pull-up >"$bounces"
		echo pull-down >"$bounces"
	done
	sleep 0.5
	same 0 "$(count_events mon)" 'edges of a line that bounces'
	pull b 4 up
	await has_events mon 1
	expect '3 rising' events mon
	end mon
	lines_given_back
}

real_one_direction() {
	serve_lines
	refuse . gpioset --chip "$chip" key=1
	grep 'line 0 "key": is for input only' "$tmp/serve"
	refuse . gpioget --chip "$chip" led
	grep 'line 1 "led": is for output only' "$tmp/serve"
	refuse 'only the guest drives' /bin/vgpio --control "$control" set key=1
	lines_given_back
}

real_busy() {
	serve_lines
	drive other "$(cat "$configfs/b/bank/chip_name")" 2=1
	refuse . gpioget --chip "$chip" io
	grep 'line 2 "io": bank-b:2 is used by "gpioset": Device or resource busy' "$tmp/serve"
	expect '"key"=inactive' gpioget --chip "$chip" key
	end other
	pull b 2 up
	expect '"io"=active' gpioget --chip "$chip" io
	lines_given_back
}

real_without_interrupt() {
	serve_lines "$noirq:1"
	vgpio --device noirq set 1=1
	expect '"io"=active' gpioget --chip "$chip" io
	# The driver can only say so in the log, as gpiolib does not wait for the type.
	monitor mon "$chip" io
	await grep "line 2 \"io\": $noirq:1: No such device or address" "$tmp/serve"
	vgpio --device noirq set 1=0
	settle
	same 0 "$(count_events mon)" 'edges'
	end mon
	expect '"io"=inactive' gpioget --chip "$chip" io
	drive set "$chip" io=1
	state_has noirq 1 active
	end set
	lines_given_back
}

real_chip_goes() {
	serve_lines
	monitor mon "$chip" io key
	echo 0 >"$configfs/b/live"
	await grep 'line 2 "io": the chip of the host is gone' "$tmp/serve"
	refuse . gpioget --chip "$chip" pulled
	grep 'line 4 "pulled": /dev/gpiochip.*:5: no chip' "$tmp/serve"
	pull a 1 up
	await has_events mon 1
	end mon
	echo 1 >"$configfs/b/live"
	expect '"pulled"=active' gpioget --chip "$chip" pulled
	monitor mon "$chip" io
	pull b 2 up
	await has_events mon 1
	end mon
	lines_given_back
}

real_command_line() {
	local key=host-line=bank-a:1,name=key,only=input led=host-line=a-named,line=2,name=led

	simulator_gone a
	simulate a 10 3
	serve --device "vduse=board,lines=6,names=:b::d:e:f,$key,$led"
	expect '"key" "b" "led" "d" "e" "f" ' names_of "$chip"
	inside info key | grep -qx '.* driven-by=host from="bank-a:1"'
	pull a 1 up
	expect '"key"=active' gpioget --chip "$chip" key
	refuse . gpioset --chip "$chip" key=1
	drive set "$chip" led=1
	pin_is a 3 1
	end set
	end serve
	absent 6
	simulator_gone a
}

real_mistakes() {
	simulator_gone a
	simulate a 10 3
	for line in nowhere:1 bank-a:10 bank-a:nothing nothing; do
		cat >"$tmp/lines.toml" <<-END
			[[device]]
			vduse = 'board'
			[[device.host-line]]
			from = '$line'
		END
		refuse "^vgpio: device \"board\": host line \"$line\": no " \
			/bin/vgpio --control "$control" serve --config "$tmp/lines.toml"
	done
	simulator_gone a
}

reason=$(nothing_inside)
if [ -z "$reason" ]; then
	check 'real: lines of two chips are read and driven' real_values
	check 'real: edges of lines of two chips' real_edges
	check 'real: bias and debounce' real_options
	check 'real: lines for one direction only' real_one_direction
	check 'real: a line that is busy' real_busy
	check 'real: a line without an interrupt' real_without_interrupt
	check 'real: a chip that goes and comes back' real_chip_goes
	check 'real: lines given on the command line' real_command_line
	check 'real: lines that do not exist' real_mistakes
	check 'real: no warning, bug, oops, or complaint of a checker' no_splat
else
	for _ in $(seq 10); do
		ktap_test_skip "real: $reason"
	done
fi
