// SPDX-License-Identifier: GPL-2.0

//! Where a driver raises the interrupts of its lines.
//!
//! C headers:
//! - [`include/linux/irqdesc.h`](srctree/include/linux/irqdesc.h)
//! - [`include/linux/irqdomain.h`](srctree/include/linux/irqdomain.h)

use super::irq_lines::IrqLines;
use crate::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        rcu, //
    }, //
};
use core::ptr;

/// The interrupts of a chip's lines, as seen from the driver that raises them.
///
/// It is part of the driver's own state, thus is there before the chip is registered and after it
/// is gone, when a device may raise interrupts as well. In between it knows the chip's IRQ domain:
/// [`Registration::with_irq`](super::Registration::with_irq) puts it in, and dropping the
/// registration takes it out and waits for calls of [`Self::handle_irq`] in progress, before
/// gpiolib frees the domain. Hence a driver needs no ordering of its own between the two.
///
/// # Invariants
///
/// `lines` is null, or points to an `IrqLines` that stays alive at least until an RCU grace
/// period has passed after the pointer was taken out.
#[pin_data]
pub struct IrqDomain {
    lines: Atomic<*mut IrqLines>,
}

impl IrqDomain {
    /// Creates one without a chip.
    #[inline]
    pub fn new() -> impl PinInit<Self> {
        // INVARIANT: Null is allowed.
        pin_init!(Self {
            lines: Atomic::new(ptr::null_mut()),
        })
    }

    /// Raises the interrupt of the line at `offset`: runs its flow handler, and thereby the
    /// handlers of its consumers, before it returns.
    ///
    /// An interrupt that is raised while the chip is still being registered, when the first
    /// consumers are already there, is raised once that is done; it is not lost.
    ///
    /// # Context
    ///
    /// Any but NMI, with interrupts on or off. Handlers run with interrupts off, on this processor.
    /// The flow handler calls [`IrqChip::irq_mask`](super::IrqChip::irq_mask) and
    /// [`IrqChip::irq_unmask`](super::IrqChip::irq_unmask) of the line, thus none of the locks that
    /// they or the handlers take may be held, and the callbacks that run under the descriptor's
    /// lock must not call it.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] if no chip is registered, not yet or not any more.
    /// - [`EINVAL`] if the chip has no such line, or nobody has ever asked for its interrupt.
    ///
    /// Follows `generic_handle_domain_irq_safe()`.
    pub fn handle_irq(&self, offset: u32) -> Result {
        let _guard = rcu::read_lock();
        let lines = self.lines.load(Acquire);

        if lines.is_null() {
            return Err(ENODEV);
        }
        // SAFETY: By the type invariant, `lines` was alive when it was read, and stays so until the
        // read-side critical section ends.
        unsafe { &*lines }.handle_irq(offset)
    }

    /// Puts the lines of a chip in.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if those of another chip are in.
    ///
    /// # Safety
    ///
    /// `lines` must stay alive until an RCU grace period has passed after [`Self::withdraw`].
    pub(super) unsafe fn publish(&self, lines: &IrqLines) -> Result {
        let new = ptr::from_ref(lines).cast_mut();

        // INVARIANT: By the safety requirements, `lines` stays alive for long enough.
        match self.lines.cmpxchg(ptr::null_mut(), new, Full) {
            Ok(_) => Ok(()),
            Err(_) => Err(EBUSY),
        }
    }

    /// Takes the lines of a chip out, if they are in; tells whether they were.
    pub(super) fn withdraw(&self, lines: &IrqLines) -> bool {
        let old = ptr::from_ref(lines).cast_mut();

        // Read first, as this is the slot of somebody else if `publish()` has failed.
        self.lines.load(Relaxed) == old && self.lines.cmpxchg(old, ptr::null_mut(), Full).is_ok()
    }
}
