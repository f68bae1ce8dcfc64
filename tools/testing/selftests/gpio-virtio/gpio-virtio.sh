#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Tests a virtio GPIO driver with the tools of libgpiod and with consumers within the kernel,
# against devices whose other side is vgpio on the host, see tools/testing/guest/host.sh.
# The devices are those of the table in scripts/selftests.sh.
#
# Numbers like D9 and V4 are requirements to drivers and to devices, from the GPIO section
# of the virtio specification; see lib.sh.
#
# gpio-virtio.sh [PART...] runs only these. Those in hard/ run only when they are named: each
# repeats COUNT times what a driver has to survive. STRESS=<seconds> is for how long the driver
# is hammered on.

# shellcheck shell=dash disable=SC1090,SC1091
cd "$(dirname "$0")" || exit 1
. ../kselftest/ktap_helpers.sh
# What can leave a driver unusable comes last.
[ $# -gt 0 ] ||
	set -- detect values edges consumers aggregator faults concurrent lifecycle silent trace \
		log handler vduse real dead

ktap_print_header
if [ ! -e /lib/host.sh ]; then
	ktap_skip_all "this is not a guest whose host has vgpio"
	exit "$KSFT_SKIP"
fi
. /lib/host.sh
. ./lib.sh
. ./leaks.sh

plan=0
for part; do
	plan=$((plan + $(grep -cE '^	?check ' "$part.sh")))
done
ktap_set_plan "$plan"
# Without their chips all of them would fail, and take hours to do so.
for device in /sys/bus/virtio/devices/*; do
	! grep -qsx 0x0029 "$device/device" || [ -n "$(find "$device/" -name 'gpiochip*')" ] ||
		ktap_exit_fail_msg "${device##*/} has no chip, see the kernel log"
done
for part; do
	find_chips
	. "./$part.sh"
done
ktap_finished
