# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Memory that nothing points to any more, as kmemleak finds it; for test scripts to source.

kmemleak=/sys/kernel/debug/kmemleak

# An object is suspect only some seconds after it was made, and only if a second look does not
# find a pointer either.
kmemleak_scan() {
	sleep 6
	echo scan >$kmemleak
	sleep 1
	echo scan >$kmemleak
}

# Shows what the last scan has found, but for what gpiolib forgets: the label of a line that is
# in use when its chip goes, and the name of its interrupt.
kmemleak_found() {
	awk '/^unreferenced/ { if (!label) printf "%s", object; object = ""; label = 0 }
		/desc_set_label|kstrdup_and_replace/ { label = 1 }
		{ object = object $0 "\n" }
		END { if (!label) printf "%s", object }' $kmemleak
}
