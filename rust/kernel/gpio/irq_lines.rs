// SPDX-License-Identifier: GPL-2.0

//! What an interrupt chip needs besides the driver's own state, and how it comes to its end.
//!
//! # The end of an interrupt chip
//!
//! gpiolib keeps callbacks of the GPIO side out of a chip that is being removed (SRCU). It does not
//! do so for management operations of genirq: a consumer may be in the middle of
//! `irq_set_irq_type()`, `enable_irq()`, `request_irq()` or `free_irq()` on another processor, and
//! sleep in there, while `gpiochip_remove()` disposes of the mapping of that very line. Four things
//! keep this sound:
//!
//! - *Nothing is raised any more.* [`IrqLines::close`] takes the lines out of the driver's
//!   [`IrqDomain`] and waits for an RCU grace period, before gpiolib frees the IRQ domain.
//! - *Nothing is requested any more.* After that it lets `irq_request_resources()` fail, and waits
//!   for all who hold a bus lock, under which a request that was not refused runs to its end. Hence
//!   each interrupt that is in use is marked so when gpiolib frees those
//!   (`gpiochip_free_remaining_irqs()`), and none comes into use afterwards, which would leave a
//!   consumer's handler, and a reference to the driver's module, behind. `request_irq()` goes on
//!   after the bus lock: it waits for the handler's thread to start, and uses what `free_irq()`
//!   frees. gpiolib does so for a system call within its SRCU section on the chip, and the
//!   registration waits for those before it lets gpiolib free any interrupt.
//! - *Callbacks under the descriptor's lock* run with interrupts off. gpiolib clears the pointer to
//!   the chip (`irq_set_chip_data()`) under that lock, and RCU regards a region with interrupts off
//!   as a reader: who has seen the pointer is done when a grace period has passed after the
//!   removal.
//! - *Callbacks that may sleep* count themselves in as *users*, under RCU, after which they no
//!   longer touch the descriptor. The end waits for a grace period, after which there are no new
//!   users, and then until there are none left. Those who wait for a bus lock are sent away: its
//!   holder may have lost the chance to release it, because genirq calls `irq_bus_sync_unlock()` of
//!   the chip that the descriptor has by then, and `irq_domain_disassociate()` puts in one that has
//!   none. Nothing else is left behind by such a holder: between the two callbacks it owns nothing
//!   but the bit.
//!
//! So no callback runs, sleeps, or touches the chip's memory once the end is over, and the driver's
//! state, its module and its device may go.
//!
//! What cannot be done from here: genirq takes no reference to the descriptor for an operation. A
//! consumer that goes on using an interrupt number while the interrupt's chip is being removed may
//! find the descriptor freed under its feet, within genirq, whatever chip it is of. A consumer in
//! the kernel that requests an interrupt while the chip is being removed may have it freed before
//! `request_irq()` is done with it. And gpiolib does not know that a chained handler
//! (`irq_set_chained_handler()`) uses the interrupt; who installs one has to take it out before the
//! chip goes.

use super::{
    irq_domain::IrqDomain,
    line_locks::LineLocks,
    line_set::LineSet, //
};
use crate::{
    bindings,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        barrier::smp_mb,
        Completion,
        Refcount, //
    }, //
};
use core::{
    marker::PhantomPinned,
    ptr::{
        self,
        NonNull, //
    }, //
};

/// The state of a chip's lines as interrupts, from before its registration until its removal is
/// over.
///
/// # Invariants
///
/// - `slot` is valid as long as the value lives.
/// - `domain` is null, or the chip's IRQ domain, which lives until [`Self::close`] has returned.
/// - `users` is one for the value itself, plus one for each [`User`].
#[pin_data(PinnedDrop)]
pub(super) struct IrqLines {
    /// The bus lock of each line.
    pub(super) locks: LineLocks,
    /// Whether no more interrupts are to be requested.
    closing: Atomic<bool>,
    users: Refcount,
    #[pin]
    no_users: Completion,
    /// Where the driver finds the lines.
    slot: NonNull<IrqDomain>,
    domain: Atomic<*mut bindings::irq_domain>,
    /// Lines whose interrupt was raised before there was a domain.
    early: LineSet,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: All that is changed is changed atomically; the pointers are valid on every thread.
unsafe impl Send for IrqLines {}

// SAFETY: As above.
unsafe impl Sync for IrqLines {}

impl IrqLines {
    /// Creates the state of that many lines, and puts it into `slot`. May sleep.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the lines of another chip are in `slot`.
    /// - [`ENOMEM`] if there is no memory.
    ///
    /// # Safety
    ///
    /// `slot` must stay valid for as long as the returned value lives.
    pub(super) unsafe fn new(slot: NonNull<IrqDomain>, lines: u32) -> Result<Pin<KBox<Self>>> {
        let lines = KBox::pin_init(
            // INVARIANT: `slot` is valid by the safety requirements, there is no domain yet, and
            // one use is that by the value itself.
            try_pin_init!(Self {
                locks: LineLocks::new(lines)?,
                closing: Atomic::new(false),
                users: Refcount::new(1),
                no_users <- Completion::new(),
                slot,
                domain: Atomic::new(ptr::null_mut()),
                early: LineSet::new(lines)?,
                _pin: PhantomPinned,
            }),
            GFP_KERNEL,
        )?;

        // SAFETY: `lines` is pinned, and dropping it withdraws it and waits for a grace period.
        unsafe { slot.as_ref().publish(&lines)? };
        Ok(lines)
    }

    fn slot(&self) -> &IrqDomain {
        // SAFETY: By the type invariant.
        unsafe { self.slot.as_ref() }
    }

    /// Raises the interrupts of the lines from now on, and those that came too early for it.
    ///
    /// # Safety
    ///
    /// `domain` must be the IRQ domain of the chip, and must not be freed before [`Self::close`]
    /// has returned.
    pub(super) unsafe fn open(&self, domain: *mut bindings::irq_domain) {
        // INVARIANT: By the safety requirements.
        self.domain.store(domain, Release);

        // Pairs with the one in `handle_irq()`: either the line is found in here, or the domain is
        // found there.
        smp_mb();
        for line in self.early.iter() {
            if self.early.remove(line) {
                // A line whose interrupt nobody wants is no reason to complain.
                let _ = dispatch(domain, line);
            }
        }
    }

    /// See [`IrqDomain::handle_irq`]; to be called under RCU.
    pub(super) fn handle_irq(&self, line: u32) -> Result {
        if !self.early.has(line) {
            return Err(EINVAL);
        }

        let mut domain = self.domain.load(Acquire);
        if domain.is_null() {
            self.early.insert(line);
            smp_mb();
            domain = self.domain.load(Acquire);
            if domain.is_null() || !self.early.remove(line) {
                return Ok(());
            }
        }
        dispatch(domain, line)
    }

    /// Whether it is too late to request an interrupt.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Prepares for the removal of the chip: see the module's documentation. Sleeps.
    pub(super) fn close(&self) {
        self.withdraw();

        // Fully ordered, as is taking a bus lock: a request either sees it, or is seen to hold its
        // lock.
        self.closing.xchg(true, Full);
        self.locks.wait_for_holders();
    }

    /// Takes the lines out of the driver's hands. Sleeps.
    fn withdraw(&self) {
        if self.slot().withdraw(self) {
            synchronize_rcu();
        }
    }

    /// Counts a callback in that may sleep.
    ///
    /// # Safety
    ///
    /// - The caller must have found `this` under RCU, and must still be in the same read-side
    ///   critical section.
    /// - The returned value must be dropped before the callback returns.
    pub(super) unsafe fn enter<'a>(this: NonNull<Self>) -> User<'a> {
        // SAFETY: `this` is alive during the read-side critical section, and from then on until the
        // returned value is dropped, as `drop()` waits for it.
        let lines = unsafe { this.as_ref() };

        // Not zero: the value drops its own use only after a grace period that this precedes.
        lines.users.inc();
        // INVARIANT: Was just counted in.
        User(lines)
    }
}

#[pinned_drop]
impl PinnedDrop for IrqLines {
    fn drop(self: Pin<&mut Self>) {
        // When the chip could not be registered, this was not done yet. There is no domain then.
        self.withdraw();

        self.locks.abandon();
        // For callbacks under the lock of a descriptor, and for those that just count themselves
        // in.
        synchronize_rcu();
        if !self.users.dec_and_test() {
            self.no_users.wait_for_completion();
        }
    }
}

/// A callback that may sleep, and during which the lines do not go away.
///
/// # Invariants
///
/// Is counted in `users` of the lines.
pub(super) struct User<'a>(&'a IrqLines);

impl User<'_> {
    /// The lines that it is a user of.
    pub(super) fn lines(&self) -> &IrqLines {
        self.0
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        if self.0.users.dec_and_test() {
            self.0.no_users.complete_all();
        }
    }
}

/// Runs the flow handler of a line.
fn dispatch(domain: *mut bindings::irq_domain, line: u32) -> Result {
    // SAFETY: `domain` is the chip's, by the type invariant of `IrqLines`, from where the callers
    // have it; it is not freed while they run.
    to_result(unsafe { bindings::generic_handle_domain_irq_safe(domain, line as usize) })
}

/// Waits for a grace period of RCU. Sleeps.
fn synchronize_rcu() {
    // SAFETY: There are no safety requirements for this FFI call.
    unsafe { bindings::synchronize_rcu() };
}
