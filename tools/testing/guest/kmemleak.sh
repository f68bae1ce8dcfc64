# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Memory leaks that kmemleak finds; for test scripts to source.

kmemleak=/sys/kernel/debug/kmemleak

# An object is suspect only some seconds after it was made, and only if a second look does not
# find a pointer either.
kmemleak_scan() {
	sleep 6
	echo scan >$kmemleak
	sleep 1
	echo scan >$kmemleak
}

# Prints the findings of the last scan, except leaks of gpiolib: the label of a line that is in use
# when its chip is removed, and the name of its interrupt.
kmemleak_found() {
	awk '/^unreferenced/ { if (!label) printf "%s", object; object = ""; label = 0 }
		/desc_set_label|kstrdup_and_replace/ { label = 1 }
		{ object = object $0 "\n" }
		END { if (!label) printf "%s", object }' $kmemleak
}
