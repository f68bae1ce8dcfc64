// SPDX-License-Identifier: GPL-2.0

//! Completions that release one waiter at a time, and waits for them that end.
//!
//! C source: [`kernel/sched/completion.c`](srctree/kernel/sched/completion.c)

use super::Completion;
use crate::{
    prelude::*,
    time::Jiffies, //
};

impl Completion {
    /// Signals one waiter.
    ///
    /// Releases the task that has been waiting longest, or, when there is none, the next one that
    /// starts to wait. Each call releases one wait.
    ///
    /// # Context
    ///
    /// Any context but NMI, also with a raw spinlock held.
    #[inline]
    pub fn complete(&self) {
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        unsafe { bindings::complete(self.as_raw()) };
    }

    /// Waits for a signal; a fatal signal to the task ends the wait.
    ///
    /// # Errors
    ///
    /// - [`EINTR`] when the task is being killed.
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

    /// Waits for a signal for at most `timeout` jiffies; a fatal signal to the task ends the wait.
    ///
    /// # Errors
    ///
    /// - [`ETIMEDOUT`] when the time is over,
    /// - [`EINTR`] when the task is being killed.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    #[inline]
    pub fn wait_for_completion_killable_timeout(&self, timeout: Jiffies) -> Result {
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        match unsafe { bindings::wait_for_completion_killable_timeout(self.as_raw(), timeout) } {
            0 => Err(ETIMEDOUT),
            ret if ret < 0 => Err(EINTR),
            _ => Ok(()),
        }
    }
}
