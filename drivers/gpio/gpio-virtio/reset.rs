// SPDX-License-Identifier: GPL-2.0

//! Resets a device that needs it: after a fault, not after a suspend.
//!
//! A device may ask for a reset (`DEVICE_NEEDS_RESET`), one of its queues may turn out to be
//! broken, or it may leave so many requests unanswered that few slots are left. Each reset makes
//! callers in flight fail, so there are only a few in a row, each after a longer time than the one
//! before. The row ends when there was no reset for a while.

use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic,
        Msecs, //
    },
    virtio,
    workqueue, //
};

use crate::VirtioGpio;

/// How many resets in a row there are.
const RESETS: u32 = 4;

/// The longest time in milliseconds from the first reset to the second. From each to the next it is
/// [`FACTOR`] times as long.
const BACKOFF_MS: i64 = 100;
const FACTOR: i64 = 4;

/// Time in milliseconds without a reset that ends the row.
const QUIET_MS: i64 = 60_000;

/// Time in milliseconds after which a device is looked at again whose lock was held.
const BUSY_MS: Msecs = 20;

/// The resets of a device so far.
pub(crate) struct Resets {
    backoff_ms: i64,
    row: u32,
    last: Option<Instant<Monotonic>>,
    /// The row has ended without success, and that was logged.
    given_up: bool,
}

impl Resets {
    /// Returns the state of a device that was not reset yet.
    pub(crate) fn new(timeout_ms: Msecs) -> Self {
        let backoff_ms = match timeout_ms {
            0 => BACKOFF_MS,
            ms => i64::from(ms / 50).clamp(1, BACKOFF_MS),
        };

        Self {
            backoff_ms,
            row: 0,
            last: None,
            given_up: false,
        }
    }

    /// Ends the row: the transport has reset the device.
    pub(crate) fn forget(&mut self) {
        self.row = 0;
        self.last = None;
        self.given_up = false;
    }

    /// Returns after what time the device may be reset, [`None`] if not any more. If that is now,
    /// the reset counts.
    fn next(&mut self, now: Instant<Monotonic>) -> Option<Delta> {
        let since = self.last.map(|last| now - last);

        if since.is_some_and(|since| since >= Delta::from_millis(QUIET_MS)) {
            self.row = 0;
        }
        if self.row >= RESETS {
            return None;
        }
        if let (Some(since), Some(nth)) = (since, self.row.checked_sub(1)) {
            let wait = Delta::from_millis(self.backoff_ms * FACTOR.pow(nth));

            if since < wait {
                return Some(wait - since);
            }
        }

        self.row += 1;
        self.given_up = false;
        self.last = Some(now);
        Some(Delta::ZERO)
    }
}

impl VirtioGpio {
    /// Notes that the device may need a reset, and sends nothing until that was looked at.
    /// `config_changed()` of the driver; any context.
    pub(crate) fn config_changed(this: &Arc<Self>) {
        this.hold();
        Self::check_device(this, 0);
    }

    /// Has the device looked at if a request may have failed because it needs a reset.
    pub(crate) fn check_queue(this: &Arc<Self>) {
        if this.requests.is_broken() || this.requests.is_stuck() {
            Self::check_device(this, 0);
        }
    }

    /// Has a work item look whether the device needs a reset. Any context.
    pub(crate) fn check_device(this: &Arc<Self>, delay_ms: Msecs) {
        // One that is pending has not looked yet. One that is disabled need not any more.
        let _ = workqueue::system_long()
            .enqueue_delayed::<_, 2>(this.clone(), msecs_to_jiffies(delay_ms));
    }

    fn hold(&self) {
        self.requests.hold();
        self.hold_events(true);
    }

    /// Looks whether the device needs a reset, and resets it. The work item.
    pub(crate) fn recover(this: &Arc<Self>) {
        let again = this.binding.try_lock(|vdev| Self::try_reset(this, vdev));

        match again {
            Ok(Some(delay)) => {
                let delay_ms = Msecs::try_from(delay.as_millis()).unwrap_or(Msecs::MAX);

                Self::check_device(this, delay_ms.max(1));
            }
            Err(err) if err == EAGAIN => Self::check_device(this, BUSY_MS),
            // A device that is suspended is restored when it is resumed.
            Ok(None) | Err(_) => (),
        }
    }

    /// Resets the device if it needs that. Returns after what time it has to be looked at again.
    fn try_reset(this: &Arc<Self>, vdev: &virtio::Locked<'_>) -> Option<Delta> {
        let mut resets = this.resets.lock();

        loop {
            let is_dead = vdev.needs_reset();

            if !is_dead && !this.requests.is_stuck() {
                let _ = this.requests.start();
                this.hold_events(false);
                Self::arm_lines(this);
                return None;
            }

            match resets.next(Instant::now()) {
                Some(delta) if delta.is_zero() => (),
                Some(delta) => {
                    this.hold();
                    return Some(delta);
                }
                None => {
                    if is_dead && !core::mem::replace(&mut resets.given_up, true) {
                        dev_err!(
                            vdev.as_ref(),
                            "the device still needs a reset: unbind and bind the driver\n"
                        );
                    }
                    if is_dead {
                        this.requests.end();
                    }
                    return None;
                }
            }

            if resets.row == 1 {
                dev_warn!(
                    vdev.as_ref(),
                    "resetting the device: it {}\n",
                    if is_dead {
                        "needs a reset"
                    } else {
                        "does not answer"
                    }
                );
            }
            this.hold();
            // If it fails, then the device still needs a reset, or is gone.
            let _ = vdev.reset().and_then(|()| Self::replay(this));
        }
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kunit_tests(gpio_virtio_reset)]
mod tests {
    use super::*;

    fn after(start: Instant<Monotonic>, ms: i64) -> Instant<Monotonic> {
        start + Delta::from_millis(ms)
    }

    #[test]
    fn resets_are_further_and_further_apart() {
        let mut resets = Resets::new(30_000);
        let start = Instant::now();
        let mut at = 0;

        for wait in [100, 400, 1600] {
            assert_eq!(resets.next(after(start, at)), Some(Delta::ZERO));
            assert_eq!(
                resets.next(after(start, at + wait - 1)),
                Some(Delta::from_millis(1))
            );
            at += wait;
        }
        assert_eq!(resets.next(after(start, at)), Some(Delta::ZERO));
    }

    fn spend(resets: &mut Resets, start: Instant<Monotonic>) -> i64 {
        let mut at = 0;

        for _ in 0..RESETS {
            assert_eq!(resets.next(after(start, at)), Some(Delta::ZERO));
            at += 10_000;
        }
        assert_eq!(resets.next(after(start, at)), None);
        at - 10_000
    }

    #[test]
    fn row_ends_after_a_quiet_time() {
        let mut resets = Resets::new(30_000);
        let start = Instant::now();
        let last = spend(&mut resets, start);

        assert_eq!(resets.next(after(start, last + QUIET_MS - 1)), None);
        assert_eq!(
            resets.next(after(start, last + QUIET_MS)),
            Some(Delta::ZERO)
        );
        assert_eq!(resets.row, 1);
    }

    #[test]
    fn row_ends_with_a_reset_by_the_transport() {
        let mut resets = Resets::new(30_000);
        let start = Instant::now();

        spend(&mut resets, start);
        resets.forget();
        assert_eq!(resets.next(start), Some(Delta::ZERO));
    }

    #[test]
    fn backoff_follows_a_short_timeout() {
        assert_eq!(Resets::new(0).backoff_ms, BACKOFF_MS);
        assert_eq!(Resets::new(1).backoff_ms, 1);
        assert_eq!(Resets::new(500).backoff_ms, 10);
        assert_eq!(Resets::new(1_000_000).backoff_ms, BACKOFF_MS);
    }
}
