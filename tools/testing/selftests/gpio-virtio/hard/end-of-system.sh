#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# end-of-system.sh HOW: ends the system by poweroff or reboot, with requests in flight,
# a line driven, a line watched, and lines in use. Not a part like the others: nothing is
# left to tell of the result. It ends with what it was told to do, or with an error.

# shellcheck shell=dash disable=SC1091,SC2154
cd "$(dirname "$0")/.." || exit 1
. /lib/host.sh
. ./lib.sh
set -e
find_chips

drive relay "$main" relay=1
monitor mon "$main" tamper
spawn churn ./gpio-line-churn 512 60 0 1 2 3
vgpio --device main fault set silent,type=get-value
spawn stuck1 gpioget --chip "$main" lid
spawn stuck2 gpioget --chip "$main" buzzer
await faults_seen main
host exit 0
sync
"$1" -f
