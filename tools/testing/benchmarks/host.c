// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way to the host, and to sysfs.
 */

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

/* Has the host run a request of the guest's host.sh, with its output among ours. */
void host(const char *format, ...)
{
	char request[4096] = ". /lib/host.sh; host ";
	size_t used = strlen(request);
	va_list args;

	va_start(args, format);
	vsnprintf(request + used, sizeof(request) - used, format, args);
	va_end(args);
	fflush(stdout);
	if (system(request))
		die(request);
}

void write_file(const char *path, const char *text)
{
	size_t length = strlen(text);
	int fd = open(path, O_WRONLY | O_TRUNC);

	if (fd < 0 || write(fd, text, length) != (ssize_t)length)
		die(path);
	close(fd);
}
