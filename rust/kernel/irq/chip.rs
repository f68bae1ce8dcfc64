// SPDX-License-Identifier: GPL-2.0

//! Types for drivers of interrupt controllers.
//!
//! C header: [`include/linux/irq.h`](srctree/include/linux/irq.h)

use crate::{
    bindings,
    prelude::*, //
};

/// The trigger of an interrupt line: one of the sense values of `IRQ_TYPE_*`.
///
/// genirq passes it to the controller's driver when a consumer requests an interrupt, or calls
/// `irq_set_irq_type()`. It takes a byte, as drivers keep it for each line.
///
/// # Examples
///
/// ```
/// use kernel::irq::TriggerType;
///
/// assert_eq!(TriggerType::try_from(0x3)?, TriggerType::EdgeBoth);
/// assert_eq!(TriggerType::LevelLow as u32, 0x8);
///
/// // A line cannot be sensitive to both levels.
/// assert_eq!(TriggerType::try_from(0xc), Err(EINVAL));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TriggerType {
    /// No trigger, or the one that firmware has set.
    None = bindings::IRQ_TYPE_NONE as u8,

    /// Low to high.
    EdgeRising = bindings::IRQ_TYPE_EDGE_RISING as u8,

    /// High to low.
    EdgeFalling = bindings::IRQ_TYPE_EDGE_FALLING as u8,

    /// Either direction.
    EdgeBoth = bindings::IRQ_TYPE_EDGE_BOTH as u8,

    /// While the line is high.
    LevelHigh = bindings::IRQ_TYPE_LEVEL_HIGH as u8,

    /// While the line is low.
    LevelLow = bindings::IRQ_TYPE_LEVEL_LOW as u8,
}

impl TryFrom<u32> for TriggerType {
    type Error = Error;

    /// Converts one of C's `IRQ_TYPE_*`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for other values.
    fn try_from(raw: u32) -> Result<Self> {
        match raw {
            bindings::IRQ_TYPE_NONE => Ok(Self::None),
            bindings::IRQ_TYPE_EDGE_RISING => Ok(Self::EdgeRising),
            bindings::IRQ_TYPE_EDGE_FALLING => Ok(Self::EdgeFalling),
            bindings::IRQ_TYPE_EDGE_BOTH => Ok(Self::EdgeBoth),
            bindings::IRQ_TYPE_LEVEL_HIGH => Ok(Self::LevelHigh),
            bindings::IRQ_TYPE_LEVEL_LOW => Ok(Self::LevelLow),
            _ => Err(EINVAL),
        }
    }
}
