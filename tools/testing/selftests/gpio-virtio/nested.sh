# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash disable=SC2154 # variables of lib.sh
#
# A guest within the guest: gpiomon watches here, on a VDUSE chip, what that one drives. Runs in
# QEMU only, with the kernel NESTED of scripts/smoke: User-Mode Linux in itself has no
# PTRACE_SYSEMU.

LIMIT=$((LIMIT * 6))
root=/tmp/nested

nested_guest() {
	mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys"
	cp -a /bin/busybox /bin/sh /bin/mount /bin/poweroff /bin/gpioset "$root/bin"
	cp -a /lib /lib64 "$root"
	cat >"$root/init" <<-'END'
		#!/bin/sh
		export PATH=/bin
		mount -t proc none /proc
		mount -t sysfs none /sys
		mount -t devtmpfs none /dev
		gpioset --toggle 20ms,20ms,20ms,20ms,20ms,20ms,20ms,20ms,20ms,0 led=1
		poweroff -f
	END
	chmod +x "$root/init"

	serve --device "socket=$tmp/guest.sock,label=guest,lines=2,names=led:in" \
		--device vduse=panel,lines=6,names=key
	inside wire led key
	monitor mon "$chip" key
	TMPDIR=/tmp ./linux mem=48M rootfstype=hostfs "rootflags=$root" rw init=/init panic=-1 \
		"virtio_uml.device=$tmp/guest.sock:41" con=null con0=fd:0,fd:1
	await seen_or_merged 10
	# With that which the wire began with.
	same 11 "$(of_panel wire_changes)" 'levels that came over the wire'
	seen_or_merged 10
	end mon
	end serve
	absent 6
}

if [ -x ./linux ]; then
	check 'nested: gpiomon sees what gpioset drives in a guest of this machine' nested_guest
	check 'nested: no warning, bug, oops, or complaint of a checker' no_splat
else
	for _ in $(seq 2); do
		ktap_test_skip 'nested: no kernel to boot, set NESTED'
	done
fi

LIMIT=$((LIMIT / 6))
