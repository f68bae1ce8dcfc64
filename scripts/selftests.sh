# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154 # variables of lib.sh
#
# What boots guests for tools/testing/selftests/gpio-virtio has in common: it puts the tests
# together, and keeps the score. For scripts that have lib.sh already.

tests=$repo/tools/testing/selftests/gpio-virtio
passed=0
failed=0
unexpected=()

# What the tests expect to find. Names of the 512 lines of the largest device.
names=$(printf 'line%d:' {0..511})
# shellcheck disable=SC2034 # for those that source this
devices=(
	--gpio "lines=8,label=main,names=button:door:lid:tamper:led-red:led-green:relay:buzzer,values=01000000"
	--gpio "lines=3,label=noirq,names=first::third,irq=off"
	--gpio "lines=5,label=unnamed"
	--gpio "lines=1,label=one,names=only"
	--gpio "lines=512,label=many,names=${names%:}"
)
# Those of the consumers in tools/testing/devicetree: the board, and one for what is to fail there.
# shellcheck disable=SC2034 # for those that source this
if [[ " ${GUEST:-} " == *" devicetree "* ]]; then
	devices=(
		--gpio "lines=32,label=board,names=first:second,i2c-eeprom=13:14"
		--gpio "lines=4,label=plain,irq=off"
	)
fi

# Puts together what the guest gets, laid out as kselftest installs it: the tests, what has to
# be built for this kernel, and the kernel's shell functions for KTAP. A shell of its own, for the
# lock.
install_tests() ( # BUILD
	local build=$1 to=$1/selftests tree program userland

	machine_of "$ARCH"
	userland=$("$repo/scripts/userland")
	lock "$(basename "$own")-$(basename "$build")-image"
	tree=$(realpath "$build/source")
	# Kbuild makes a module's struct module anew when its sources change, not when .config does.
	rm -rf "$build/test_modules"
	run_logged "test module" "$own/log/test-module" 0 \
		"$repo/scripts/enter" make -C "$tree" O="$build" ARCH="${machine[kernel]}" LLVM=1 CC="ccache clang" \
		M="$tests/test_modules" MO="$build/test_modules" modules
	rm -rf "$to"
	mkdir -p "$to/kselftest" "$to/gpio-virtio/test_modules"
	cp "$tree/tools/testing/selftests/kselftest/ktap_helpers.sh" "$to/kselftest/"
	cp -r "$tests"/*.sh "$tests/hard" "$to/gpio-virtio/"
	[[ -z ${NESTED:-} ]] || cp "$NESTED" "$to/gpio-virtio/linux"
	cp "$build/test_modules/"*.ko "$to/gpio-virtio/test_modules/"
	for program in "$tests"/*.c; do
		"$repo/scripts/enter" clang --target="${machine[triplet]}" --sysroot="$userland" -fuse-ld=lld \
			-static -O2 -Wall -o "$to/gpio-virtio/$(basename "$program" .c)" "$program"
	done
)

# Why the C driver fails a check, if it is known to.
known() { # CHECK
	[[ $DRIVER != c ]] || awk -F '\t' -v check="$1" '$2 == check { print $1 }' "$tests/c-driver.known"
}

# Takes the result of one guest into account: each check that it planned, with one plan or more,
# has passed, was skipped, or has failed, if only for not being reached.
judge() { # GUEST KTAP LOG
	local ok skipped planned

	ok=$(grep -c '^ok ' "$2" || true)
	skipped=$(grep -c '^ok .* # SKIP' "$2" || true)
	planned=$(awk -F '[. ]' '/^1\.\./ { n += $3 } END { print n == "" ? 1 : n }' "$2")
	while IFS= read -r check; do
		failure "$1" "$check"
	done < <(sed -n 's/^not ok [0-9]* //p' "$2")
	grep -q '^# Totals:' "$2" || {
		note "the tests did not come to their end, the kernel log is $3"
		failure "$1" "the end of the tests"
		# If nothing that was planned is missing, what was not planned yet is.
		((planned > ok)) || planned=$((ok + 1))
	}
	passed=$((passed + ok - skipped))
	failed=$((failed + planned - ok))
	! grep -q '^Bail out!' "$2" || unexpected+=("$1: $(grep '^Bail out!' "$2")")
}

failure() { # GUEST CHECK
	local reason

	reason=$(known "$2")
	if [[ -n $reason ]]; then
		echo "# known of the C driver ($reason): $2"
	else
		unexpected+=("$1: $2")
	fi
}

# Shows what has failed and was not known to; the last line has the score.
final_score() {
	((${#unexpected[@]} == 0)) || printf 'failed: %s\n' "${unexpected[@]}"
	echo "$passed passed, $failed failed"
	((${#unexpected[@]} == 0))
}
