// SPDX-License-Identifier: GPL-2.0

/* The trace events of the driver, for which there is no macro in Rust. */

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/virtio_gpio.h>
