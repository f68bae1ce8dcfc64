# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# What debugfs shows of a device.

counter() { # NAME
	sed -n "s/^  $1: //p" "$debugfs/gpio-$(device_of "$main")/counters"
}

requests_of_device() {
	vgpio --device main stats | awk -F ': ' '/^\trequests\./ { sum += $2 } END { print sum }'
}

counted() {
	local sent received events
	sent=$(counter 'messages sent')
	received=$(requests_of_device)
	events=$(counter 'valid events')
	monitor mon "$main" tamper
	pace mon main tamper=1 tamper=0 tamper=1 tamper=0
	end mon
	await state_has main tamper unused
	same 4 "$(($(counter 'valid events') - events))" 'valid events'
	differ "$sent" "$(counter 'messages sent')" 'messages sent'
	same "$(($(requests_of_device) - received))" "$(($(counter 'messages sent') - sent))" \
		'messages that the device has seen, and that were sent'
	same 0 "$(counter 'timeouts in a row')" 'timeouts in a row'
}
check 'debugfs: counters tell of each message, and of each event' counted

lines_in_use() {
	cut -d ';' -f 1 "$debugfs/gpio-$(device_of "$main")/lines" | tr '\n' ';'
}

listed() {
	expect '' lines_in_use
	drive relay "$main" relay=1
	monitor mon "$main" tamper
	expect '3: direction In, gpio, interrupt;6: direction Out, value 1, gpio;' lines_in_use
	grep '^3: .*; trigger EdgeBoth, .*buffer Armed' "$debugfs/gpio-$(device_of "$main")/lines"
	end relay
	end mon
	await expect '' lines_in_use
}
check 'debugfs: the lines in use, and what for' listed
