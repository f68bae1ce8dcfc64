#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# kunit.sh ROUNDS [SUITE_GLOB]: runs the KUnit suites of this kernel, in another order each
# time, and prints failures and leaks. Ends with `N passed, N failed`.

# shellcheck source=tools/testing/guest/kmemleak.sh
. /lib/kmemleak.sh

suites=/sys/kernel/debug/kunit
shuffle=/sys/module/gpio_virtio_kunit/parameters/shuffle
passed=0
failed=0

# Names and counts of objects that the suites may leak.
left() {
	ls /sys/bus/gpio/devices /sys/bus/virtio/devices /sys/kernel/irq /sys/kernel/debug/irq/domains 2>/dev/null
}

complain() {
	echo "not ok: $1"
	failed=$((failed + 1))
}

count() { # PATTERN
	grep -cE "$1" "$results"
}

run() { # SUITE
	results=$suites/$1/results
	# In the log of the kernel, for its warnings.
	echo "# suite $1, round $round" >/dev/kmsg
	echo 1 >"$suites/$1/run"
	good=$(($(count '^ +ok ') - $(count '^ +ok .* # SKIP')))
	passed=$((passed + good))
	echo "# $1: $good passed"
	failed=$((failed + $(count '^ +not ok ')))
	if grep -q '^not ok ' "$results"; then
		echo "# $1 has failed in round $round, shuffled by $(cat "$shuffle"):"
		grep -v '^ *ok ' "$results"
	fi
}

# The state before the suites.
left >/tmp/before
if [ -e $kmemleak ]; then
	kmemleak_scan
	echo clear >$kmemleak
fi
round=1
while [ "$round" -le "$1" ]; do
	start=$(cut -d ' ' -f 1 /proc/uptime)
	was=$passed
	for suite in $(find $suites -mindepth 1 -maxdepth 1 -type d -name "${2:-*}" | shuf); do
		# Suites of init code cannot run after the boot.
		[ ! -e "$suite/run" ] || run "${suite##*/}"
	done
	echo "# round $round: $((passed - was)) passed, from $start to $(cut -d ' ' -f 1 /proc/uptime) s"
	# Another seed each time.
	echo $(((round * 7919) % 65521 + 1)) >$shuffle
	round=$((round + 1))
done

left >/tmp/after
cmp -s /tmp/before /tmp/after || {
	complain "something is left of the devices:"
	diff /tmp/before /tmp/after
}
if [ -e $kmemleak ]; then
	kmemleak_scan
	kmemleak_found >/tmp/leaks
	if [ -s /tmp/leaks ]; then
		complain "memory is left:"
		cat /tmp/leaks
	fi
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
