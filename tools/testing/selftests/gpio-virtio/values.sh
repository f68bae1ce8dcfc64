# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# Values in both directions, directions, and who may have a line.

get_one() {
	vgpio --device main set button=1
	expect '"button"=active' gpioget --chip "$main" button
	vgpio --device main set button=0
	expect '"button"=inactive' gpioget --chip "$main" button
}
check 'get: the guest reads what the host sets, high and low' get_one

get_initial() {
	expect '"door"=active' gpioget --chip "$main" door
}
check 'get: a level from before the guest was there' get_initial

get_all_8() {
	vgpio --device main set 0=1 1=0 2=1 3=1 4=0 5=0 6=1 7=0
	expect '1 0 1 1 0 0 1 0' gpioget --numeric --chip "$main" 0 1 2 3 4 5 6 7
	# In the order of the request.
	expect '0 1 0 1' gpioget --numeric --chip "$main" 7 6 5 0
	vgpio --device main set 0=0 1=1 2=0 3=0 4=0 5=0 6=0 7=0
	expect '0 1 0 0 0 0 0 0' gpioget --numeric --chip "$main" 0 1 2 3 4 5 6 7
}
check 'get: all 8 lines in one go, in the order asked for' get_all_8

numbers() { # FROM TO
	seq "$1" "$2" | tr '\n' ' '
}

get_64() {
	local want='' i

	for i in $(seq 448 511); do
		set -- "$@" "$i=$((i * 7 / 3 % 2))"
		want="$want$((i * 7 / 3 % 2)) "
	done
	vgpio --device many set "$@"
	# shellcheck disable=SC2046
	expect "${want% }" gpioget --numeric --chip "$many" $(numbers 448 511)
}
check 'get: 64 of 512 lines in one go' get_64

set_one() {
	drive set "$main" led-red=1
	expect '"led-red"=active' vgpio --device main get led-red
	end set
	drive set "$main" led-red=0
	expect '"led-red"=inactive' vgpio --device main get led-red
}
check 'set: the host sees what the guest drives, high and low' set_one

set_many() {
	drive set "$main" 0=1 2=1 3=0 4=1 7=1
	expect '1 1 0 1 1' vgpio --device main get --numeric 0 2 3 4 7
	state_has main 1 unused
}
check 'set: several lines in one go, and no other' set_many

set_64() {
	local want='' i

	for i in $(seq 0 63); do
		set -- "$@" "$i=$((i * 5 / 3 % 2))"
		want="$want$((i * 5 / 3 % 2)) "
	done
	drive set "$many" "$@"
	# shellcheck disable=SC2046
	expect "${want% }" vgpio --device many get --numeric $(numbers 0 63)
}
check 'set: 64 of 512 lines in one go' set_64

edges_of_host() { # NAME
	awk '{ print $2 }' "$tmp/$1" | tr '\n' ' '
}

toggle() {
	host start watch vgpio --device main mon --banner -n 4 led-red
	spawn set gpioset --chip "$main" --toggle 20ms,20ms,20ms,0 led-red=1
	host finish watch >"$tmp/edges"
	expect 'rising falling rising falling ' edges_of_host edges
}
check 'set: the host sees each edge of gpioset --toggle, in order' toggle

no_glitch() {
	vgpio --device main set relay=1
	host start watch vgpio --device main mon --banner relay
	drive set "$main" relay=1
	settle
	host stop watch >"$tmp/edges" || :
	vgpio --device main set relay=0
	expect 'driven ' edges_of_host edges
}
check 'D9: no other value shows when a line becomes an output' no_glitch

host_level_remembered() {
	drive set "$main" relay=1
	vgpio --device main set relay=0
	expect '"relay"=active' vgpio --device main get relay
	end set
	await expect '"relay"=inactive' vgpio --device main get relay
}
check 'D11: a line that is released goes back to the level of the host' host_level_remembered

directions() {
	drive set "$main" buzzer=0
	state_has main buzzer output
	gpioinfo --chip "$main" buzzer | grep -q 'output.*consumer="gpioset"'
	end set
	await state_has main buzzer unused
	spawn get gpioget --chip "$main" --hold-period 10s buzzer
	await state_has main buzzer input
	gpioinfo --chip "$main" buzzer | grep -q 'input.*consumer="gpioget"'
	end get
	await state_has main buzzer unused
}
check 'D11: the device knows of output, input, and the end of either' directions

killed() {
	drive set "$main" buzzer=1
	end set KILL
	await state_has main buzzer unused
}
check 'D11: a line is released when its user is killed' killed

active_low() {
	vgpio --device main set lid=1
	expect '"lid"=inactive' gpioget --active-low --chip "$main" lid
	vgpio --device main set lid=0
	expect '"lid"=active' gpioget --active-low --chip "$main" lid
	drive set "$main" --active-low lid=1
	expect '"lid"=inactive' vgpio --device main get lid
	end set
	drive set "$main" --active-low lid=0
	expect '"lid"=active' vgpio --device main get lid
}
check 'active-low: values are inverted on input and on output' active_low

open_drain() {
	drive set "$main" --drive open-drain lid=1
	state_has main lid input
	end set
	drive set "$main" --drive open-drain lid=0
	state_has main lid output
	expect '"lid"=inactive' vgpio --device main get lid
}
check 'open-drain: a high line is not driven, a low one is' open_drain

busy() {
	drive set "$main" led-green=1
	refuse 'resource busy' gpioset --chip "$main" led-green=0
	refuse 'resource busy' gpioget --chip "$main" led-green
	refuse 'resource busy' gpiomon --chip "$main" led-green
	expect '"led-green"=active' vgpio --device main get led-green
	end set
	expect '"led-green"=inactive' gpioget --chip "$main" led-green
}
check 'busy: the second user of a line is refused, the first is not disturbed' busy

neighbours() {
	drive set1 "$main" led-red=1
	drive set2 "$main" led-green=1
	expect '"led-red"=active "led-green"=active' vgpio --device main get led-red led-green
	expect '"door"=active' gpioget --chip "$main" door
}
check 'two processes have lines of the same chip' neighbours

bad_line() {
	refuse 'offset 8 is out of range' gpioget --chip "$main" 8
	refuse 'offset 512 is out of range' gpioget --chip "$many" 512
	refuse 'offset 1 is out of range' gpioset --chip "$one" 1=1
	refuse 'cannot find line' gpioget --chip "$main" nothing
}
check 'bad line: offset and name that do not exist are refused' bad_line

one_line() {
	vgpio --device one set only=1
	expect '"only"=active' gpioget --chip "$one" only
	drive set "$one" 0=0
	expect '"only"=inactive' vgpio --device one get only
}
check '1 line: is read and driven' one_line

last_of_512() {
	vgpio --device many set 511=1
	expect '"line511"=active' gpioget line511
	vgpio --device many set 511=0
	expect '"line511"=inactive' gpioget line511
	drive set "$many" 511=1
	expect '"line511"=active' vgpio --device many get line511
}
check '512 lines: the last one is read and driven' last_of_512

without_names() {
	vgpio --device unnamed set 4=1
	expect '"4"=active' gpioget --chip "$unnamed" 4
	drive set "$unnamed" 2=1
	expect '"2"=active' vgpio --device unnamed get 2
}
check 'no names: lines are read and driven by offset' without_names

without_irq() {
	vgpio --device noirq set 2=1
	expect '"third"=active' gpioget --chip "$noirq" third
	drive set "$noirq" 1=1
	expect '"1"=active' vgpio --device noirq get 1
}
check 'no F_IRQ: lines are read and driven' without_irq
