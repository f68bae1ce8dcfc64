// SPDX-License-Identifier: GPL-2.0

//! Spinlocks that are taken with local interrupts disabled.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use super::LockClassKey;
use crate::{
    prelude::*,
    types::Opaque, //
};
use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    marker::PhantomPinned, //
};

/// Creates a [`RawSpinLock`] initialiser with the given name and a newly-created lock class.
///
/// Derives the name from the file name and line number if none is given.
#[macro_export]
macro_rules! new_raw_spinlock {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::sync::RawSpinLock::new(
            $inner, $crate::optional_name!($($name)?), $crate::static_lock_class!())
    };
}
pub use new_raw_spinlock;

/// A `spinlock_t` that is taken with local interrupts disabled.
///
/// Protects data that is shared with an interrupt handler. On `PREEMPT_RT`, where interrupt
/// handlers are threads, it is a sleeping lock and interrupts stay enabled. The holder may allocate
/// with [`GFP_ATOMIC`], free memory, and take other `spinlock_t`.
pub type SpinLockIrq<T> = IrqLock<T, Spin>;

/// A `raw_spinlock_t` that is taken with local interrupts disabled.
///
/// Spins on `PREEMPT_RT`, too. Meant for code that the core calls under a raw lock of its own, such
/// as the callbacks of `struct irq_chip`. The holder must not allocate or free memory, nor take a
/// `spinlock_t`.
pub type RawSpinLock<T> = IrqLock<T, Raw>;

/// The C lock behind an [`IrqLock`].
///
/// # Safety
///
/// `lock()` and `unlock()` must exclude each other on one lock, from any context but NMI.
pub unsafe trait IrqLockKind: 'static {
    /// The C type of the lock.
    type State;

    /// Initialises a lock.
    ///
    /// # Safety
    ///
    /// `slot` must be valid for writes, and the lock must not be moved afterwards.
    unsafe fn init(slot: *mut Self::State, name: &'static CStr, key: Pin<&'static LockClassKey>);

    /// Disables local interrupts and takes the lock. Returns the previous interrupt state.
    ///
    /// # Safety
    ///
    /// `lock` must have been initialised by `init()`.
    unsafe fn lock(lock: *mut Self::State) -> c_ulong;

    /// Releases the lock and restores the interrupt state.
    ///
    /// # Safety
    ///
    /// The caller must hold the lock, and `flags` must be what `lock()` returned. All locks that
    /// were taken since must have been released.
    unsafe fn unlock(lock: *mut Self::State, flags: c_ulong);
}

/// A `spinlock_t`.
pub enum Spin {}

/// A `raw_spinlock_t`.
pub enum Raw {}

// SAFETY: A `spinlock_t` is a lock; taken with interrupts off, a handler on the same processor
// cannot interrupt its holder and wait for it.
unsafe impl IrqLockKind for Spin {
    type State = bindings::spinlock_t;

    unsafe fn init(slot: *mut Self::State, name: &'static CStr, key: Pin<&'static LockClassKey>) {
        // SAFETY: `slot` is valid by the requirements; `name` and `key` are `'static`.
        unsafe { bindings::__spin_lock_init(slot, name.as_char_ptr(), key.as_ptr()) }
    }

    #[inline]
    unsafe fn lock(lock: *mut Self::State) -> c_ulong {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::spin_lock_irqsave(lock) }
    }

    #[inline]
    unsafe fn unlock(lock: *mut Self::State, flags: c_ulong) {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::spin_unlock_irqrestore(lock, flags) }
    }
}

// SAFETY: A `raw_spinlock_t` is a lock; taken with interrupts off, a handler on the same processor
// cannot interrupt its holder and wait for it.
unsafe impl IrqLockKind for Raw {
    type State = bindings::raw_spinlock_t;

    unsafe fn init(slot: *mut Self::State, name: &'static CStr, key: Pin<&'static LockClassKey>) {
        // SAFETY: `slot` is valid by the requirements; `name` and `key` are `'static`.
        unsafe { bindings::raw_spin_lock_init_key(slot, name.as_char_ptr(), key.as_ptr()) }
    }

    #[inline]
    unsafe fn lock(lock: *mut Self::State) -> c_ulong {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::raw_spin_lock_irqsave(lock) }
    }

    #[inline]
    unsafe fn unlock(lock: *mut Self::State, flags: c_ulong) {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::raw_spin_unlock_irqrestore(lock, flags) }
    }
}

/// A lock that is taken with local interrupts disabled: a [`SpinLockIrq`] or a [`RawSpinLock`].
///
/// [`IrqLock::with`] runs a closure instead of returning a guard. Each `irqsave` section restores
/// the interrupt state that it found, so sections must be left in reverse order. Guards could be
/// dropped in any order, and would enable interrupts within the section of another lock; closures
/// nest by construction.
///
/// # Examples
///
/// ```
/// use kernel::sync::{
///     new_raw_spinlock,
///     RawSpinLock, //
/// };
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
pub struct IrqLock<T, K: IrqLockKind> {
    /// The kernel lock object.
    #[pin]
    lock: Opaque<K::State>,

    /// The debug variants of the lock hold pointers that must not move.
    #[pin]
    _pin: PhantomPinned,

    /// [`IrqLock::with`] runs. Without `CONFIG_SMP` C's locks let their holder in again.
    held: Cell<bool>,

    /// The data protected by the lock.
    data: UnsafeCell<T>,
}

// SAFETY: The lock itself may be used from any thread; the data moves with it, hence `T: Send`.
unsafe impl<T: Send, K: IrqLockKind> Send for IrqLock<T, K> {}

// SAFETY: `with()` hands out the data to one caller at a time, on any thread, hence `T: Send`.
// References to the data never exist on two threads at once, so `T: Sync` is not needed. `held` is
// only accessed with the lock held.
unsafe impl<T: Send, K: IrqLockKind> Sync for IrqLock<T, K> {}

impl<T, K: IrqLockKind> IrqLock<T, K> {
    /// Constructs a new lock initialiser.
    ///
    /// [`new_raw_spinlock!`] calls this with a lock class of its own.
    pub fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes while the closure runs, and the lock is pinned.
            lock <- Opaque::ffi_init(|slot| unsafe { K::init(slot, name, key) }),
            _pin: PhantomPinned,
            held: Cell::new(false),
            data: UnsafeCell::new(data),
        })
    }

    /// Runs `f` on the protected data with the lock held and local interrupts disabled, then
    /// restores the caller's interrupt state.
    ///
    /// `f` must not sleep. Calling this from within `f` on the same lock deadlocks, or, without
    /// `CONFIG_SMP`, panics.
    ///
    /// # Context
    ///
    /// Any context but NMI for a raw lock, else any in which a `spinlock_t` may be taken.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: The lock was initialised by `new()`, the only constructor.
        let flags = unsafe { K::lock(self.lock.get()) };

        if !cfg!(CONFIG_SMP) {
            assert!(!self.held.replace(true), "a lock is taken by its holder");
        }

        // SAFETY: The lock is held, and not by a caller further up, so there is no other reference
        // to the data. The one created here cannot outlive the call of `f`, which is generic over
        // its lifetime, and so ends before the lock is released below.
        let ret = f(unsafe { &mut *self.data.get() });

        if !cfg!(CONFIG_SMP) {
            self.held.set(false);
        }

        // SAFETY: The lock was acquired above by this very caller, with `flags` as its result. As
        // sections nest by construction, all that were entered within `f` have been left.
        unsafe { K::unlock(self.lock.get(), flags) };

        ret
    }
}
