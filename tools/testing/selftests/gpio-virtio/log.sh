# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
#
# What the kernel has had to say meanwhile.

dmesg -r >"$tmp/dmesg"

no_splat() {
	! grep -E 'WARNING:|BUG:|Oops|INFO: |Call Trace|stack-protector|KASAN|UBSAN|nobody cared|rcu:.*stall|possible circular|general protection|scheduling while atomic' "$tmp/dmesg"
}
check 'log: no warning, bug, oops, or complaint of a checker' no_splat

check 'log: the interrupt chip is immutable' sh -c "! grep 'not an immutable chip' $tmp/dmesg"

# Messages of the driver at level warning or worse, but for what tests have provoked.
unprovoked() {
	grep -E '^<[0-4]>.*(gpio|virtio[0-9])' "$tmp/dmesg" | grep -v 'not an immutable chip' | grep -vE "$provoked" >"$tmp/bad" || :
	sed 's/^/unexpected: /' "$tmp/bad"
	[ ! -s "$tmp/bad" ]
}
provoked='^$'
check 'log: no error or warning of the driver that no test has provoked' unprovoked
