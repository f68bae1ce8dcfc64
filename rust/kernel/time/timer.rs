// SPDX-License-Identifier: GPL-2.0

//! Timers of the timer wheel.
//!
//! For timeouts, most of which are not reached. See [`hrtimer`](super::hrtimer) for precise ones.
//!
//! C header: [`include/linux/timer.h`](srctree/include/linux/timer.h)

use super::Jiffies;
use crate::{
    bindings,
    prelude::*,
    static_lock_class,
    types::Opaque, //
};
use core::ops::Deref;

/// Returns the current time in jiffies, which wraps around.
#[inline]
pub fn jiffies() -> Jiffies {
    // SAFETY: The C side changes the variable at any time, in one piece.
    unsafe { (&raw const bindings::jiffies).read_volatile() }
}

/// Returns how many jiffies have passed since `then`.
#[inline]
pub fn elapsed(then: Jiffies) -> Jiffies {
    jiffies().wrapping_sub(then)
}

/// Initialises a timer. Not generic, as all timers have one lock class, with one name.
///
/// # Safety
///
/// `slot` must be valid for writes, and the timer must not be moved afterwards.
unsafe fn timer_setup(
    slot: *mut bindings::timer_list,
    callback: unsafe extern "C" fn(*mut bindings::timer_list),
) {
    let (name, key) = (c"Timer".as_char_ptr(), static_lock_class!().as_ptr());

    // SAFETY: By the requirements of this function; `name` and `key` are `'static`.
    unsafe { bindings::timer_init_key(slot, Some(callback), 0, name, key) }
}

/// What a [`Timer`] is for.
pub trait Expire: Sync + 'static {
    /// Called when the timer expires. Returns after how many jiffies it expires again, if so.
    ///
    /// # Context
    ///
    /// Softirq; must not sleep.
    fn expired(&self) -> Option<Jiffies>;
}

/// A timer of the timer wheel, and the value that it is for.
///
/// # Context
///
/// To be dropped in process or softirq context, and not by [`Expire::expired`], for the end of
/// which the drop waits.
#[pin_data(PinnedDrop)]
pub struct Timer<T: Expire> {
    #[pin]
    timer: Opaque<bindings::timer_list>,
    #[pin]
    value: T,
}

// SAFETY: The C functions lock the timer, and may be called from any thread.
unsafe impl<T: Expire + Send> Send for Timer<T> {}

// SAFETY: As above; `T` is `Sync`.
unsafe impl<T: Expire> Sync for Timer<T> {}

impl<T: Expire> Timer<T> {
    /// Constructs an initialiser for a timer that is not pending.
    pub fn new(value: impl PinInit<T>) -> impl PinInit<Self> {
        pin_init!(Self {
            timer <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, and does not move.
                unsafe { timer_setup(slot, Self::callback) }
            }),
            value <- value,
        })
    }

    /// Has the timer expire in `delay` jiffies, unless it is pending.
    ///
    /// # Context
    ///
    /// Any context but NMI.
    #[inline]
    pub fn start_unless_pending(&self, delay: Jiffies) {
        let timer = self.timer.get();

        // `timer_pending()`.
        //
        // SAFETY: The timer was initialised. The C side changes the pointer at any time, in one
        // piece.
        if unsafe { (&raw const (*timer).entry.pprev).read_volatile() }.is_null() {
            // SAFETY: The timer was initialised.
            unsafe { bindings::mod_timer(timer, jiffies().wrapping_add(delay)) };
        }
    }

    /// # Safety
    ///
    /// `timer` must be that of a `Self`, which lives until the callback has returned.
    unsafe extern "C" fn callback(timer: *mut bindings::timer_list) {
        // SAFETY: By the requirements of this function. The drop of the value waits for it; it is
        // pinned, and `T` borrows nothing that could end before.
        let this = unsafe { &*crate::container_of!(Opaque::cast_from(timer), Self, timer) };

        if let Some(delay) = this.value.expired() {
            this.start_unless_pending(delay);
        }
    }
}

impl<T: Expire> Deref for Timer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[pinned_drop]
impl<T: Expire> PinnedDrop for Timer<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The timer was initialised. It cannot be started any more, and the callback has
        // ended when this returns.
        unsafe { bindings::timer_shutdown_sync(self.timer.get()) };
    }
}

#[cfg(CONFIG_RUST_TIMER_KUNIT_TEST)]
#[kunit_tests(rust_kernel_timer)]
mod tests {
    use super::*;
    use crate::{
        sync::atomic::{
            Atomic,
            Relaxed, //
        },
        time::{
            delay::fsleep,
            msecs_to_jiffies,
            Delta,
            Msecs, //
        }, //
    };

    /// What the timer of a test has done. Outlives the timer.
    struct Expired {
        times: Atomic<i32>,
        last: Atomic<usize>,
    }

    impl Expired {
        const fn never() -> Self {
            Self {
                times: Atomic::new(0),
                last: Atomic::new(0),
            }
        }

        fn times(&self) -> i32 {
            self.times.load(Relaxed)
        }

        /// Waits until the timer has expired so many times, or for ten seconds.
        fn wait(&self, times: i32) {
            for _ in 0..1000 {
                if self.times() >= times {
                    break;
                }
                fsleep(Delta::from_millis(10));
            }
        }
    }

    /// Expires so many times.
    struct Count {
        expired: &'static Expired,
        left: Atomic<i32>,
    }

    impl Expire for Count {
        fn expired(&self) -> Option<Jiffies> {
            self.expired.last.store(jiffies(), Relaxed);
            self.expired.times.fetch_add(1, Relaxed);
            (self.left.fetch_sub(1, Relaxed) > 1).then_some(1)
        }
    }

    fn timer(expired: &'static Expired, times: i32) -> Result<Pin<KBox<Timer<Count>>>> {
        let count = Count {
            expired,
            left: Atomic::new(times),
        };

        expired.times.store(0, Relaxed);
        KBox::pin_init(Timer::new(count), GFP_KERNEL)
    }

    fn ms(ms: Msecs) -> Jiffies {
        msecs_to_jiffies(ms)
    }

    #[test]
    fn expires_after_its_delay() -> Result {
        static EXPIRED: Expired = Expired::never();
        let timer = timer(&EXPIRED, 1)?;
        let since = jiffies();

        timer.start_unless_pending(ms(50));
        EXPIRED.wait(1);
        drop(timer);
        assert_eq!(EXPIRED.times(), 1);
        assert!(EXPIRED.last.load(Relaxed).wrapping_sub(since) >= ms(50));
        Ok(())
    }

    #[test]
    fn expires_again_when_told_to() -> Result {
        static EXPIRED: Expired = Expired::never();
        let timer = timer(&EXPIRED, 3)?;

        timer.start_unless_pending(1);
        EXPIRED.wait(3);
        fsleep(Delta::from_millis(50));
        drop(timer);
        assert_eq!(EXPIRED.times(), 3);
        Ok(())
    }

    #[test]
    fn can_be_started_again() -> Result {
        static EXPIRED: Expired = Expired::never();
        let timer = timer(&EXPIRED, 1)?;

        for times in 1..=2 {
            timer.start_unless_pending(1);
            EXPIRED.wait(times);
        }
        drop(timer);
        assert_eq!(EXPIRED.times(), 2);
        Ok(())
    }

    #[test]
    fn starts_once_while_pending() -> Result {
        static EXPIRED: Expired = Expired::never();
        let timer = timer(&EXPIRED, 1)?;

        timer.start_unless_pending(ms(100));
        // It neither expires later nor twice.
        timer.start_unless_pending(ms(60_000));
        EXPIRED.wait(1);
        fsleep(Delta::from_millis(50));
        drop(timer);
        assert_eq!(EXPIRED.times(), 1);
        Ok(())
    }

    #[test]
    fn does_not_expire_after_the_drop() -> Result {
        static EXPIRED: Expired = Expired::never();
        let timer = timer(&EXPIRED, 1)?;

        timer.start_unless_pending(ms(200));
        drop(timer);

        let before = EXPIRED.times();

        fsleep(Delta::from_millis(300));
        assert_eq!(EXPIRED.times(), before);
        Ok(())
    }
}
