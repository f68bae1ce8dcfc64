# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# What is left behind, as far as the kernel tells: with what is in
# tools/testing/configs/hard.config, objects of the allocator too.

# shellcheck source=tools/testing/guest/kmemleak.sh
. /lib/kmemleak.sh

# Frees what is only kept for later, so that what is in use can be counted.
shrink() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	# Objects whose grace period is not over, and work that has been put off.
	sleep 1
	for cache in /sys/kernel/slab/*/shrink; do
		[ ! -e "$cache" ] || echo 1 >"$cache"
	done
}

# Everything that a driver could forget to give back, a name and a number on each line. Not
# what file systems keep to find it again, and what kmemleak knows of each object.
census() {
	shrink
	echo "chips $(find /sys/bus/gpio/devices -name 'gpiochip*' | wc -l)"
	echo "devices $(find /sys/bus/virtio/devices -name 'virtio*' | wc -l)"
	echo "interrupts $(grep -c : /proc/interrupts)"
	echo "descriptors $(find /sys/kernel/irq -type d | wc -l)"
	[ ! -e /proc/slabinfo ] || awk '
		NR > 2 && !/^(dentry|inode_cache|kmalloc-rcl|kmemleak|vmap_area)/ {
			print "slab:" $1, $2
		}' /proc/slabinfo
	# Those that were given back are objects until there are many.
	echo "slab:vmap_area $(grep -vc unpurged /proc/vmallocinfo)"
}

# Remembers the state to compare with.
baseline() {
	census >"$tmp/before"
	[ ! -e "$kmemleak" ] || echo clear >"$kmemleak"
}

# Nothing has piled up in that many cycles. What is in use varies by some objects of any
# kind, and each driver has a right to its first ones; a leak grows with the cycles. Each
# processor has up to a sheaf of objects, 60 small ones, that kfree_rcu() has freed.
nothing_piled_up() { # CYCLES
	census >"$tmp/after"
	awk -v limit="$(($1 / 2 + 64 * $(nproc)))" \
		-v quarantine="$(grep -c kasan_quarantine_put /proc/kallsyms)" '
		NR == FNR { before[$1] = $2; next }
		$1 ~ /^slab:/ {
			# Where KASAN keeps freed objects for a while they count as in use.
			if (!quarantine && $2 - before[$1] > limit)
				grown = grown sprintf("%s: %d, was %d\n", $1, $2, before[$1])
			next
		}
		$2 != before[$1] { grown = grown sprintf("%s: %d, was %d\n", $1, $2, before[$1]) }
		END { printf "%s", grown; exit grown != "" }' "$tmp/before" "$tmp/after"
}

# There is no memory that nothing points to.
all_referenced() {
	[ -e "$kmemleak" ] || return 0
	kmemleak_scan
	kmemleak_found >"$tmp/unreferenced"
	cat "$tmp/unreferenced"
	[ ! -s "$tmp/unreferenced" ]
}

nothing_leaked() { # CYCLES
	nothing_piled_up "$1"
	all_referenced
}
