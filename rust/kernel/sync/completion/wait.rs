// SPDX-License-Identifier: GPL-2.0

//! `complete()` and killable waits of completions.
//!
//! C source: [`kernel/sched/completion.c`](srctree/kernel/sched/completion.c)

use super::Completion;
use crate::prelude::*;

impl Completion {
    /// Wakes the task that has waited longest, or lets the next wait succeed if there is none.
    ///
    /// # Context
    ///
    /// Any context but NMI, also with a raw spinlock held.
    #[inline]
    pub fn complete(&self) {
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        unsafe { bindings::complete(self.as_raw()) };
    }

    /// Waits for the completion, or for a fatal signal.
    ///
    /// # Errors
    ///
    /// [`EINTR`] on a fatal signal.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    #[inline]
    pub fn wait_for_completion_killable(&self) -> Result {
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        match unsafe { bindings::wait_for_completion_killable(self.as_raw()) } {
            0 => Ok(()),
            _ => Err(EINTR),
        }
    }
}
