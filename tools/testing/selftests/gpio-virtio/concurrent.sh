# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# Many at once, on all processors.

LIMIT=$((LIMIT + ${STRESS:=5}))

hammered() {
	local merged errors total=$((STRESS * 50 * 4))
	merged=$(stat main edges_merged)
	errors=$(stat main answered_err)
	monitor mon "$main" 4 5 6 7
	host start watch vgpio --device main toggle --count $((STRESS * 50)) --interval 20ms 4 5 6 7
	./gpio-line-stress "/dev/$main" "$STRESS" 0 1 2 3
	host finish watch
	await all_reported main "$merged" "$total" mon
	settle
	all_reported main "$merged" "$total" mon
	same "$errors" "$(stat main answered_err)" 'messages that the device refused'
}
check 'D2: 4 tasks set and get 4 lines while 4 lines fire: no failure, wrong value or lost edge' \
	hammered

LIMIT=$((LIMIT - STRESS))

check 'D2: afterwards requests and events are as before' lines_work

racing_requests() {
	local n
	for n in 0 2 3 4; do
		spawn "race$n" sh -c "for _ in \$(seq 25); do
			gpioset --chip $main --toggle 1ms,0 $n=1 && gpioget --chip $main $n || exit
		done; echo finished"
	done
	for n in 0 2 3 4; do
		await grep -q finished "$tmp/race$n"
	done
}
check 'D2: 4 processes request, drive, read and release 4 lines, 25 times' racing_requests

racing_monitors() {
	local n
	for n in 0 2 3 4; do
		spawn "race$n" sh -c "for _ in \$(seq 25); do
			gpiomon --quiet --chip $main --idle-timeout 1ms $n || exit
		done; echo finished"
	done
	vgpio --device main toggle --count 50 --interval 2ms 0 2 3 4
	for n in 0 2 3 4; do
		await grep -q finished "$tmp/race$n"
	done
	await state_has main 4 unused
	monitor mon "$main" 0 2 3 4
	pace mon main 0=1 2=1 3=1 4=1 0=0 2=0 3=0 4=0
	expect '0 rising 2 rising 3 rising 4 rising 0 falling 2 falling 3 falling 4 falling' \
		events mon
}
check 'D5: 4 processes begin and end to watch 4 lines, 25 times, while edges come' racing_monitors

# The interrupt of a chip, and how many a processor has handled.
interrupt_of() { # CHIP
	sed -nE "s/^ *([0-9]+):.*[ ,]$(device_of "$1")(,.*)?$/\1/p" /proc/interrupts
}
handled_by() { # PROCESSOR INTERRUPT
	awk -v column=$(($1 + 2)) -v name="$2:" '$1 == name { print $column }' /proc/interrupts
}

second=/sys/devices/system/cpu/cpu1/online

processor_goes() {
	local irq merged handled
	irq=$(interrupt_of "$main")
	merged=$(stat main edges_merged)

	echo 2 >"/proc/irq/$irq/smp_affinity"
	handled=$(handled_by 1 "$irq")
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0
	differ "$handled" "$(handled_by 1 "$irq")" 'interrupts of the second processor'

	host start watch vgpio --device main toggle --count 100 --interval 10ms tamper
	await has_events mon 20
	echo 0 >"$second"
	expect '"door"=active' gpioget --chip "$main" door
	host finish watch
	await all_reported main "$merged" 102 mon

	echo 1 >"$second"
	echo 3 >"/proc/irq/$irq/smp_affinity"
	pace mon main tamper=1 tamper=0
}
if [ -e "$second" ]; then
	check 'D2: the processor that takes the interrupts goes while edges come: none lost' \
		processor_goes
else
	ktap_test_skip 'D2: there is no second processor that could go'
fi
