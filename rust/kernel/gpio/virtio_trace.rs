// SPDX-License-Identifier: GPL-2.0

//! Trace events of the virtio GPIO driver.
//!
//! The driver defines them, in its module if it is one, so that nothing else can use them. They may
//! be traced in any context but NMI. An event that is disabled costs a branch, which is patched out
//! where the architecture can do that.
//!
//! C header: [`include/trace/events/virtio_gpio.h`](srctree/include/trace/events/virtio_gpio.h)

use crate::{
    bindings,
    device::Device,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    },
    tracepoint::declare_trace, //
};
use core::ptr;

/// Declares functions that trace an event each: of a device, and with numbers.
macro_rules! declare_events {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident = $event:ident($($arg:ident: $type:ty),*);)*) => {
        declare_trace! {
            $(
                /// # Safety
                ///
                /// `dev` must be valid.
                unsafe fn $event(dev: *const bindings::device, $($arg: $type),*);
            )*
        }

        $(
            $(#[$doc])*
            #[inline]
            $vis fn $name(dev: &Device, $($arg: $type),*) {
                // CAST: `Device` is transparent. `as_raw()` is not inlined.
                let dev = ptr::from_ref(dev).cast();

                // SAFETY: A reference is valid. The other arguments are numbers.
                unsafe { $event(dev, $($arg),*) }
            }
        )*
    };
}

declare_events! {
    /// A request about a line is put into the requestq.
    pub fn request = virtio_gpio_request(line: u16, kind: u32, value: u32);

    fn answered = virtio_gpio_response(line: u16, kind: u32, ret: i32, latency_us: i64);

    /// The event buffer of a line has come back from the device.
    pub fn event = virtio_gpio_event(line: u16, status: u8);

    /// The event buffer of a line is handed to the device.
    pub fn arm = virtio_gpio_arm(line: u16);

    /// The driver resets the device, for the `attempt`th time in a row.
    pub fn reset = virtio_gpio_reset(attempt: u32);
}

/// Returns the time if [`response`] is enabled, for its latency.
#[inline]
pub fn response_since() -> Option<Instant<Monotonic>> {
    #[cfg(CONFIG_TRACEPOINTS)]
    // SAFETY: This is the static key of a tracepoint.
    if unsafe {
        crate::jump_label::static_branch_unlikely!(
            bindings::__tracepoint_virtio_gpio_response,
            bindings::tracepoint,
            key
        )
    } {
        return Some(Instant::now());
    }
    None
}

/// A request is answered, with a value or with an error, unless that was disabled at `since`.
#[inline]
pub fn response(
    dev: &Device,
    line: u16,
    kind: u32,
    ret: Result<u8>,
    since: Option<Instant<Monotonic>>,
) {
    if let Some(since) = since {
        let ret = ret.map_or_else(Error::to_errno, i32::from);

        answered(dev, line, kind, ret, since.elapsed().as_micros_ceil());
    }
}
