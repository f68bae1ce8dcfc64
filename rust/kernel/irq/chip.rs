// SPDX-License-Identifier: GPL-2.0

//! What drivers of interrupt controllers share, whatever kind of device they are part of.
//!
//! C header: [`include/linux/irq.h`](srctree/include/linux/irq.h)

use crate::{
    bindings,
    prelude::*, //
};

/// What an interrupt line is to react to: one of the sense values of `IRQ_TYPE_*`.
///
/// genirq hands it to the controller's driver when a consumer requests an interrupt with a trigger,
/// or changes it with `irq_set_irq_type()`.
///
/// # Examples
///
/// ```
/// use kernel::irq::TriggerType;
///
/// assert_eq!(TriggerType::try_from(0x3)?, TriggerType::EdgeBoth);
/// assert_eq!(TriggerType::LevelLow.as_raw(), 0x8);
/// assert!(TriggerType::EdgeBoth.is_edge());
/// assert!(TriggerType::LevelHigh.is_level());
///
/// // A line cannot be sensitive to both levels.
/// assert_eq!(TriggerType::try_from(0xc), Err(EINVAL));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TriggerType {
    /// No trigger: the line raises no interrupt, or keeps what firmware has set up.
    None = bindings::IRQ_TYPE_NONE,

    /// The line going from low to high.
    EdgeRising = bindings::IRQ_TYPE_EDGE_RISING,

    /// The line going from high to low.
    EdgeFalling = bindings::IRQ_TYPE_EDGE_FALLING,

    /// The line changing in either direction.
    EdgeBoth = bindings::IRQ_TYPE_EDGE_BOTH,

    /// The line being high, for as long as it is.
    LevelHigh = bindings::IRQ_TYPE_LEVEL_HIGH,

    /// The line being low, for as long as it is.
    LevelLow = bindings::IRQ_TYPE_LEVEL_LOW,
}

impl TriggerType {
    /// The value that C uses for it.
    #[inline]
    pub const fn as_raw(self) -> u32 {
        self as u32
    }

    /// Whether one change of the line is one interrupt.
    #[inline]
    pub const fn is_edge(self) -> bool {
        matches!(self, Self::EdgeRising | Self::EdgeFalling | Self::EdgeBoth)
    }

    /// Whether the interrupt repeats for as long as the line keeps its level.
    #[inline]
    pub const fn is_level(self) -> bool {
        matches!(self, Self::LevelHigh | Self::LevelLow)
    }
}

impl TryFrom<u32> for TriggerType {
    type Error = Error;

    /// Converts one of C's `IRQ_TYPE_*`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `raw` is none of them, a combination of them other than
    /// `IRQ_TYPE_EDGE_BOTH`, or has bits beyond `IRQ_TYPE_SENSE_MASK`.
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
