// SPDX-License-Identifier: GPL-2.0

//! A raw spinlock that keeps interrupts off.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use super::LockClassKey;
use crate::{
    prelude::*,
    types::Opaque, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomPinned, //
};

/// Creates a [`RawSpinLock`] initialiser with the given name and a newly-created lock class.
///
/// It uses the name if one is given, otherwise it generates one based on the file name and line
/// number.
#[macro_export]
macro_rules! new_raw_spinlock {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::sync::RawSpinLock::new(
            $inner, $crate::optional_name!($($name)?), $crate::static_lock_class!())
    };
}
pub use new_raw_spinlock;

/// A `raw_spinlock_t` that is taken with local interrupts disabled.
///
/// Other than a [`SpinLock`](super::SpinLock) it really spins on `PREEMPT_RT` too, and it may be
/// taken in any context but NMI, hard interrupts included. It is meant for short critical sections
/// that are shared with an interrupt handler.
///
/// There is no guard: [`RawSpinLock::with`] runs a closure instead. `irqsave` sections must be left
/// in the reverse order in which they were entered, because each restores the interrupt state that
/// it found. Guards could be dropped in any order and would leave interrupts enabled in the section
/// of another lock; closures nest by construction.
///
/// # Examples
///
/// ```
/// use kernel::sync::{new_raw_spinlock, RawSpinLock};
///
/// #[pin_data]
/// struct Counter {
///     #[pin]
///     events: RawSpinLock<u32>,
/// }
///
/// let counter = KBox::pin_init(
///     pin_init!(Counter { events <- new_raw_spinlock!(0, "Counter::events") }),
///     GFP_KERNEL,
/// )?;
///
/// counter.events.with(|events| *events += 1);
/// assert_eq!(counter.events.with(|events| *events), 1);
/// # Ok::<(), Error>(())
/// ```
#[pin_data]
pub struct RawSpinLock<T> {
    /// The kernel lock object.
    #[pin]
    lock: Opaque<bindings::raw_spinlock_t>,

    /// The debug variants of the lock hold pointers that must not move.
    #[pin]
    _pin: PhantomPinned,

    /// The data protected by the lock.
    data: UnsafeCell<T>,
}

// SAFETY: The lock itself may be used from any thread; the data moves with it, hence `T: Send`.
unsafe impl<T: Send> Send for RawSpinLock<T> {}

// SAFETY: `with()` hands out the data to one caller at a time, which may be on another thread than
// the one that created it, hence `T: Send`. References to the data never exist on two threads at
// once, so `T: Sync` is not needed.
unsafe impl<T: Send> Sync for RawSpinLock<T> {}

impl<T> RawSpinLock<T> {
    /// Constructs a new lock initialiser.
    ///
    /// See [`new_raw_spinlock!`] for the usual way to call it.
    pub fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes while the closure runs; `name` and `key` are
                // valid for reads indefinitely because both are `'static`.
                unsafe {
                    bindings::raw_spin_lock_init_key(slot, name.as_char_ptr(), key.as_ptr())
                }
            }),
            _pin: PhantomPinned,
            data: UnsafeCell::new(data),
        })
    }

    /// Runs `f` on the protected data with the lock held and local interrupts disabled.
    ///
    /// `f` must not sleep. The interrupt state of the caller is restored afterwards.
    ///
    /// Calling this from within `f` on the same lock deadlocks, as with any kernel spinlock.
    ///
    /// # Context
    ///
    /// Any context but NMI.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: The lock was initialised by `new()`, the only constructor.
        let flags = unsafe { bindings::raw_spin_lock_irqsave(self.lock.get()) };

        // SAFETY: The lock is held, so nobody else has a reference to the data. The one created
        // here cannot outlive the call of `f`, which is generic over its lifetime, and so ends
        // before the lock is released below.
        let ret = f(unsafe { &mut *self.data.get() });

        // SAFETY: The lock was acquired above by this very caller, with `flags` as its result. As
        // sections nest by construction, all that were entered within `f` have been left.
        unsafe { bindings::raw_spin_unlock_irqrestore(self.lock.get(), flags) };

        ret
    }
}
