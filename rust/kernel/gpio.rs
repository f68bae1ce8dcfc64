// SPDX-License-Identifier: GPL-2.0

//! GPIO controllers.
//!
//! A driver of a GPIO controller implements [`Chip`], and [`IrqChip`] if its lines can be
//! interrupts, and registers it with [`Registration`].
//!
//! C headers:
//! - [`include/linux/gpio/driver.h`](srctree/include/linux/gpio/driver.h)
//! - [`include/linux/gpio/defs.h`](srctree/include/linux/gpio/defs.h)
//!
//! Reference: <https://docs.kernel.org/driver-api/gpio/driver.html>

use crate::bindings;

mod driver;
#[cfg(CONFIG_GPIOLIB_IRQCHIP)]
mod irqchip;
#[cfg(CONFIG_RUST_GPIO_KUNIT_TEST)]
mod kunit;
#[cfg(CONFIG_GPIO_VIRTIO_RUST)]
pub mod virtio_trace;

pub use self::driver::{
    Chip,
    ChipInfo,
    LineConfig,
    LineNames,
    Registration, //
};
#[cfg(CONFIG_GPIOLIB_IRQCHIP)]
pub use self::irqchip::{
    FlowHandler,
    IrqChip,
    IrqDomain,
    LockClasses, //
};
#[cfg(CONFIG_GPIOLIB_IRQCHIP)]
#[doc(inline)]
pub use crate::gpio_lock_classes as lock_classes;

/// The direction of a line, as the controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LineDirection {
    /// The controller drives the line.
    Out = bindings::GPIO_LINE_DIRECTION_OUT,

    /// The controller only senses the line.
    In = bindings::GPIO_LINE_DIRECTION_IN,
}
