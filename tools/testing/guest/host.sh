# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Requests from the guest to the host, for test scripts to source. A second serial port, the
# kernel parameter CHANNEL, carries requests, one line each; the host answers with lines that begin with `| `, then
# with `= STATUS`.

# Kept open: input that arrives while it is closed is lost.
exec 7<>"/dev/$CHANNEL"
stty raw -echo <&7 2>/dev/null

# Lets the host run a request, prints its output, and returns its status. Requests:
#   vgpio ARGUMENTS...               run a vgpio command on the device
#   start NAME vgpio ARGUMENTS...    the same in the background
#   finish NAME, stop NAME           wait for it, or interrupt it, and get its output
#   vgpio-kill, vgpio-start, vgpio-restart, vgpio-pause, vgpio-resume    the device itself
host() {
	(
		flock 9
		printf '%s\n' "$*" >&7
		while IFS= read -r answer; do
			case $answer in
			'| '*) printf '%s\n' "${answer#| }" ;;
			'= '*) exit "${answer#= }" ;;
			esac
		done <&7
	) 9>/tmp/channel.lock
}

vgpio() {
	host vgpio "$@"
}
