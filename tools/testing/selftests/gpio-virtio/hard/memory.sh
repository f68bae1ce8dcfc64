# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2034,SC2154 # variables of lib.sh
#
# How much memory a device costs, the median of COUNT: what is in use with the driver bound,
# less what is in use with it unbound. That is of the driver, gpiolib, the IRQ domain and the
# virtqueues together. The devices are those of memory in scripts/check-hard.

LIMIT=$((120 + COUNT * 60))

# Pages that processors keep for themselves are free, too, but MemFree does not count them.
pages_kib() {
	awk '/pages free/ { pages += $3 } /count:/ { pages += $2 }
		END { print pages * -4 }' /proc/zoneinfo
}

# Objects of kmalloc() up to 8 KiB; the rest is pages only.
objects_bytes() {
	awk '/^kmalloc-/ { sum += $2 * $4 } END { print sum }' /proc/slabinfo
}

median() { # NAME
	sort -n "$tmp/$1" | sed -n "$(((COUNT + 1) / 2))p"
}

costs() { # LINES
	local device pages objects
	device=$(device_of "$(chip_with "$1")")
	: >"$tmp/pages"
	: >"$tmp/objects"

	for _ in $(seq "$COUNT"); do
		echo "$device" >"$driver/unbind"
		shrink
		pages=$(pages_kib)
		objects=$(objects_bytes)
		echo "$device" >"$driver/bind"
		shrink
		echo "$(($(pages_kib) - pages))" >>"$tmp/pages"
		echo "$(($(objects_bytes) - objects))" >>"$tmp/objects"
	done
	echo "$1 $(median pages) $(median objects)" >>"$tmp/costs"
	sort -n "$tmp/pages" | tr '\n' ' '
	sort -n "$tmp/objects" | tr '\n' ' '
	# A device costs something, or this has measured nothing.
	[ "$(median pages)" -gt 0 ]
	[ "$(median objects)" -gt 0 ]
}

# What is allocated once is not to count.
shrink
: >"$tmp/costs"
check 'memory: of 8 lines' costs 8
check 'memory: of 512 lines' costs 512
check 'memory: of 65535 lines' costs 65535
awk '{ printf "# %d lines: %d KiB, %.1f bytes a line; %d bytes of small objects, %.1f a line\n",
	$1, $2, $2 * 1024 / $1, $3, $3 / $1 }' "$tmp/costs"
