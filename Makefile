# SPDX-License-Identifier: GPL-2.0
#
# Entry points; `make` alone prints them.

# Without this GNU make would run our targets in parallel; they use all processors themselves.
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

SERIES ?= series

# Command line variables reach the scripts through the environment.
export ARCH DRIVER KERNEL MODULE SAN KDIR JOBS COPY FORCE TRANSPORT TOOLCHAIN DEBIAN_MIRROR STRESS PARTS
export SLOW SMP SHUFFLE REPEAT CONFIGS GUEST COMPARE PAIRS OPERATIONS KEEP RAW OUT RESPONSES FUZZ_SECONDS SOAK FULL

help:
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo "Variables:"
	@sed -n 's/^#: \([A-Z|_]*\) \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

#: ARCH x86_64, arm64, riscv64, s390x or um (User-Mode Linux)
#: DRIVER rust, c for the driver in C, or c-fixed for that one with the fixes in scripts/patches
#: KERNEL 7.2, or 7.3 for the release candidate in Debian's experimental
#: TRANSPORT pci or mmio (QEMU)
#: MODULE 1 builds the driver as a module
#: SAN 1 builds with KASAN, UBSAN, lockdep and kmemleak
#: CONFIGS preempt-rt, kcsan or both build such kernels
#: GUEST threadirqs, swiotlb, iommu or devicetree: sets up the QEMU guest with it
#: SMP number of processors of a QEMU guest that runs KUnit
#: KDIR a kernel tree of your own
#: COPY 1 grafts copies in place of links
#: FORCE 1 grafts into a kernel tree of another version if the patches apply
#: TOOLCHAIN newest, oldest or host: uses these tools instead of those of Debian 13

toolchain: ## make the toolchain root
	@scripts/toolchain

source: ## fetch the reference kernel and unpack it
	@scripts/source

graft: ## put the driver into a kernel tree, or refresh it
	@scripts/graft

ungraft: ## restore a grafted kernel tree byte for byte
	@scripts/graft ungraft

kernel: ## build a guest kernel
	@scripts/kernel

vgpio: ## build vgpio
	@scripts/vgpio-program

deb: ## build a Debian package of vgpio
	@scripts/deb

gpio-box: ## build gpio-box and the kernel that it boots
	@scripts/gpio-box-program

run: ## boot a guest and leave you at its shell
	@scripts/run

test: ## run all tests
	@scripts/test

test-all: ## run all tests, and some of them again in other guests and with other kernels (hours)
	@scripts/test all

smoke: ## boot guests and test the driver with libgpiod (STRESS=<seconds>)
	@scripts/smoke

architectures: ## run the KUnit suites and the smoke tests for each architecture, and print a table (hours)
	@scripts/architectures

samples: ## boot a guest and test the sample drivers on devices that QEMU emulates
	@scripts/samples

kunit: ## build and run the KUnit suites (SLOW=1, SMP=<n>, SHUFFLE=<seed>, REPEAT=<n>)
	@scripts/kunit

compare: ## run the KUnit suites on both drivers, and on the one in C with the fixes, and print which tests each passes
	@scripts/compare

fuzz: ## run the driver against hostile devices (SEED, SEEDS, RESPONSES)
	@scripts/fuzz $(or $(SEED),1) $(SEEDS)

bench: ## measure both drivers (PAIRS=<n>, OPERATIONS=<n>, KEEP=1)
	@scripts/bench

board-test: ## test the page of vgpio board in headless Chromium, with a guest
	@scripts/board-test

mutants: ## break the driver on purpose, one fault at a time, and print which tests catch it
	@scripts/mutants

fuzz-vgpio: ## fuzz vgpio (FUZZ_SECONDS=<seconds>)
	@scripts/fuzz-vgpio

check-hard: ## run the stress tests (FULL=1)
	@scripts/check-hard $(PARTS)

soak: ## repeat the stress tests (SOAK=<seconds>)
	@scripts/soak

lint: ## run all static checks
	@scripts/lint

weight: ## count the lines of code
	@scripts/weight

series: ## write the patches that are sent to the kernel's lists, into SERIES (default: series/)
	@scripts/series $(abspath $(SERIES))

check-series: ## apply the series patch by patch, and build and test each state (hours; PARTS)
	@scripts/check-series $(PARTS)

clean: ## delete this checkout's builds and kernel tree
	@scripts/clean

distclean: ## delete the toolchain root and the kernel source, too
	@scripts/clean all

.PHONY: help toolchain source graft ungraft kernel vgpio deb gpio-box run test test-all smoke architectures samples kunit compare fuzz bench board-test mutants fuzz-vgpio check-hard soak lint weight series check-series clean distclean
