// SPDX-License-Identifier: GPL-2.0

//! The bus lock of an interrupt chip: one for each line.
//!
//! C header: [`include/linux/wait_bit.h`](srctree/include/linux/wait_bit.h)

use super::line_set::LineSet;
use crate::{
    bindings,
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    }, //
};

/// A sleeping lock for each line of a chip, at the price of one bit for each.
///
/// One lock for the whole chip would let a line whose other side is slow stall all others: genirq
/// takes the bus lock whenever it ends a threaded interrupt, too. A mutex for each line would cost
/// tens of bytes a line, of which a chip may have 65535. Waiters sleep in the kernel's shared hash
/// of wait queues for bits, which costs nothing as long as nobody waits.
///
/// The locks can be abandoned: from then on nobody waits for one any more.
///
/// # Invariants
///
/// A bit of `held` is set by [`Self::lock`], and cleared with a wake-up of those who wait for it.
pub(super) struct LineLocks {
    held: LineSet,
    abandoned: Atomic<bool>,
}

impl LineLocks {
    /// Creates the locks of that many lines, none of them held. May sleep.
    pub(super) fn new(lines: u32) -> Result<Self> {
        Ok(Self {
            held: LineSet::new(lines)?,
            abandoned: Atomic::new(false),
        })
    }

    /// Takes the lock of `line`; tells whether it did, which it does not once the locks are
    /// abandoned.
    ///
    /// Sleeps, uninterruptibly: genirq has no way to tell its callers that they were interrupted.
    #[must_use]
    pub(super) fn lock(&self, line: u32) -> bool {
        let Some(bit) = self.bit_of(line) else {
            return false;
        };

        // SAFETY: `bit` is one of the bitmap, which lives as long as `self`. All other accesses of
        // the bitmap are atomic.
        unsafe {
            bindings::wait_on_bit_lock(self.held.as_ptr(), bit, bindings::TASK_UNINTERRUPTIBLE)
        };

        // `abandon()` does these two things in the other order, both sides with full barriers: if
        // it missed that this lock was taken, this sees that the locks are abandoned.
        if self.abandoned.load(Relaxed) {
            self.unlock(line);
            return false;
        }
        true
    }

    /// Releases the lock of `line`, and wakes the first one that waits for it. Does not sleep.
    pub(super) fn unlock(&self, line: u32) {
        let Some(bit) = self.bit_of(line) else {
            return;
        };

        // SAFETY: As in `lock()`.
        unsafe { bindings::clear_and_wake_up_bit(bit, self.held.as_ptr()) };
    }

    /// Waits until each lock that is held now was released at least once. Sleeps, uninterruptibly.
    pub(super) fn wait_for_holders(&self) {
        for line in self.held.iter() {
            let Some(bit) = self.bit_of(line) else {
                continue;
            };

            // SAFETY: As in `lock()`.
            unsafe {
                bindings::wait_on_bit(self.held.as_ptr(), bit, bindings::TASK_UNINTERRUPTIBLE)
            };
        }
    }

    /// Lets all go who wait for a lock, and all who will.
    ///
    /// For the end of the chip's life: a holder that genirq never lets release its lock must not
    /// leave others waiting for ever.
    pub(super) fn abandon(&self) {
        self.abandoned.xchg(true, Full);
        for line in self.held.iter() {
            self.unlock(line);
        }
    }

    /// The number of a line's bit as C's functions for bits take it.
    fn bit_of(&self, line: u32) -> Option<c_int> {
        if !self.held.has(line) {
            return None;
        }
        c_int::try_from(line).ok()
    }
}
