#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# samples.sh FIRST LAST PACKED: tests the virtio samples in a guest that has an entropy device and a
# disk, of whose first and last sector the driver logs this. Whether their rings are packed is `on` or
# `off`. TAP; the last line is `N passed, N failed`.

rng=/dev/rust-virtio-rng
first_sector=$1
last_sector=$2
packed=$3
number=0
failed=0

check() { # NAME COMMAND...
	name=$1
	shift
	number=$((number + 1))
	if "$@" >/tmp/check 2>&1; then
		echo "ok $number $name"
	else
		sed 's/^/# /' /tmp/check
		echo "not ok $number $name"
		failed=$((failed + 1))
	fi
}

# The device that a driver is bound to.
device_of() { # DRIVER
	find "/sys/bus/virtio/drivers/$1" -name 'virtio*' -exec basename {} \; | grep .
}

# VIRTIO_F_RING_PACKED was agreed on.
rings_are() { # on|off
	for driver in rust_virtio_rng rust_virtio_blk; do
		device=$(device_of $driver) || return
		bit=$(cut -c 35 "/sys/bus/virtio/devices/$device/features")
		[ "$bit" = "$([ "$1" = on ] && echo 1 || echo 0)" ] || return
	done
}

random_bytes_differ() {
	dd if=$rng bs=64 count=256 iflag=fullblock of=/tmp/first || return
	dd if=$rng bs=64 count=256 iflag=fullblock of=/tmp/second || return
	[ "$(wc -c </tmp/first)" = 16384 ] || return
	! cmp /tmp/first /tmp/second
}

# Random bytes do not compress.
random_bytes_are_random() {
	gzip -c /tmp/first >/tmp/first.gz
	[ "$(wc -c </tmp/first.gz)" -gt 16384 ]
}

# Readers at the same time get all that they want, each something else.
many_readers() {
	rm -f /tmp/reader.*
	for reader in 1 2 3 4; do
		head -c 100000 $rng >/tmp/reader.$reader &
	done
	wait
	[ "$(cat /tmp/reader.* | wc -c)" = 400000 ] || return
	[ "$(sha256sum /tmp/reader.* | cut -d ' ' -f 1 | sort -u | wc -l)" = 4 ]
}

# The driver logs both sectors once while the command runs.
logs_the_disk() { # COMMAND...
	before=$(dmesg | wc -l)
	"$@" || return
	dmesg | tail -n +$((before + 1)) >/tmp/log
	[ "$(grep -cF "$first_sector" /tmp/log)" = 1 ] && [ "$(grep -cF "$last_sector" /tmp/log)" = 1 ]
}

disk_was_logged() {
	dmesg | grep -F "$first_sector" && dmesg | grep -F "$last_sector"
}

unbind() { # DRIVER DEVICE
	echo "$2" >"/sys/bus/virtio/drivers/$1/unbind" && ! device_of "$1"
}

bind() { # DRIVER DEVICE
	echo "$2" >"/sys/bus/virtio/drivers/$1/bind" && device_of "$1"
}

# A file that is open meanwhile tells.
unbind_and_bind_rng() {
	device=$(device_of rust_virtio_rng) || return

	exec 8<$rng
	unbind rust_virtio_rng "$device" || return
	! dd bs=64 count=1 <&8 2>/tmp/error || return
	grep 'No such device' /tmp/error || return
	bind rust_virtio_rng "$device" || return
	[ "$(dd if=$rng bs=64 count=1 | wc -c)" = 64 ]
}

unbind_under_load() {
	device=$(device_of rust_virtio_rng) || return

	for round in 1 2 3 4 5; do
		cat $rng >/dev/null 2>/tmp/error &
		cat $rng >/dev/null 2>/tmp/error &
		sleep 0.0$round
		unbind rust_virtio_rng "$device" || return
		# They have got an error.
		wait
		bind rust_virtio_rng "$device" || return
	done
}

unbind_and_bind_blk() {
	device=$(device_of rust_virtio_blk) || return

	unbind rust_virtio_blk "$device" && bind rust_virtio_blk "$device"
}

# To idle and back: devices are suspended and resumed, nothing else is.
suspend() {
	echo devices >/sys/power/pm_test || return
	echo freeze >/sys/power/state
}

no_complaints() {
	! dmesg | grep -E 'WARNING: |BUG: |INFO: task|Oops'
}

echo TAP version 13
check "the entropy device is bound" device_of rust_virtio_rng
check "packed rings are $packed" rings_are "$packed"
check "random bytes differ" random_bytes_differ
check "random bytes are random" random_bytes_are_random
check "many readers of random bytes" many_readers
check "the disk is bound" device_of rust_virtio_blk
check "the disk was logged" disk_was_logged
check "the entropy device is unbound and bound" unbind_and_bind_rng
check "the entropy device is unbound under load" unbind_under_load
check "random bytes differ afterwards" random_bytes_differ
check "the disk is logged when it is bound again" logs_the_disk unbind_and_bind_blk
check "the disk is logged after a suspend" logs_the_disk suspend
check "random bytes differ after a suspend" random_bytes_differ
check "the kernel does not complain" no_complaints
echo "1..$number"
echo "$((number - failed)) passed, $failed failed"
[ "$failed" = 0 ]
