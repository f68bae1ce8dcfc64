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

# Prints the findings of the last scan.
kmemleak_found() {
	cat $kmemleak
}
