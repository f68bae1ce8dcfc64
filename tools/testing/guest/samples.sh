#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# samples.sh SHA256 SIZE: tests the virtio samples in a guest that has an entropy device and a disk
# of SIZE bytes with this checksum. TAP; the last line is `N passed, N failed`.

rng=/dev/rust-virtio-rng
blk=/dev/rust-virtio-blk
sha256=$1
size=$2
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

disk_is_the_image() {
	[ "$(sha256sum <$blk)" = "$sha256  -" ]
}

disk_has_its_size() {
	[ "$(wc -c <$blk)" = "$size" ]
}

# What is read from somewhere in the middle, in pieces of another size, is what is there.
parts_are_the_image() {
	cat $blk >/tmp/disk || return
	for skip in 1 7 100; do
		dd if=/tmp/disk bs=777 skip=$skip count=20 of=/tmp/expected || return
		dd if=$blk bs=777 skip=$skip count=20 iflag=fullblock of=/tmp/found || return
		cmp /tmp/expected /tmp/found || return
	done
}

nothing_beyond_the_end() {
	[ "$({ cat >/dev/null && wc -c; } <$blk)" = 0 ]
}

parallel_reads() {
	for reader in 1 2 3 4; do
		sha256sum <$blk >/tmp/sum.$reader &
	done
	wait
	[ "$(cat /tmp/sum.* | sort -u)" = "$sha256  -" ]
}

# Unbinds and binds by sysfs; a file that is open meanwhile tells.
unbind_and_bind() { # DRIVER NODE
	driver=/sys/bus/virtio/drivers/$1
	device=$(device_of "$1") || return

	exec 8<"$2"
	echo "$device" >"$driver/unbind" || return
	! device_of "$1" || return
	! dd bs=64 count=1 <&8 2>/tmp/error || return
	grep 'No such device' /tmp/error || return
	echo "$device" >"$driver/bind" || return
	[ "$(dd bs=64 count=1 <&8 | wc -c)" = 64 ]
}

unbind_under_load() { # DRIVER NODE
	driver=/sys/bus/virtio/drivers/$1
	device=$(device_of "$1") || return

	for round in 1 2 3 4 5; do
		cat "$2" >/dev/null 2>/tmp/error &
		cat "$2" >/dev/null 2>/tmp/error &
		sleep 0.0$round
		echo "$device" >"$driver/unbind" || return
		# They have got an error, or the whole disk before.
		wait
		echo "$device" >"$driver/bind" || return
	done
}

# To idle and back: devices are suspended and resumed, nothing else is.
suspend() {
	echo devices >/sys/power/pm_test || return
	echo freeze >/sys/power/state || return
	random_bytes_differ && disk_is_the_image
}

no_complaints() {
	! dmesg | grep -E 'WARNING: |BUG: |INFO: task|Oops'
}

echo TAP version 13
check "the entropy device is bound" device_of rust_virtio_rng
check "random bytes differ" random_bytes_differ
check "random bytes are random" random_bytes_are_random
check "many readers of random bytes" many_readers
check "the disk is bound" device_of rust_virtio_blk
check "the disk is the image" disk_is_the_image
check "the disk has its size" disk_has_its_size
check "parts of the disk are the image" parts_are_the_image
check "there is nothing beyond the end of the disk" nothing_beyond_the_end
check "parallel reads of the disk" parallel_reads
check "the entropy device is unbound and bound" unbind_and_bind rust_virtio_rng $rng
check "the entropy device is unbound under load" unbind_under_load rust_virtio_rng $rng
check "random bytes differ afterwards" random_bytes_differ
check "the disk is unbound and bound" unbind_and_bind rust_virtio_blk $blk
check "the disk is unbound under load" unbind_under_load rust_virtio_blk $blk
check "the disk is the image afterwards" disk_is_the_image
check "both work after a suspend" suspend
check "the kernel does not complain" no_complaints
echo "1..$number"
echo "$((number - failed)) passed, $failed failed"
[ "$failed" = 0 ]
