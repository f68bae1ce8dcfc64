// SPDX-License-Identifier: GPL-2.0

//! What suspend and resume do, and resets of a device that needs one. Mostly, suspend closes the
//! queues: see `rust/kernel/virtio/binding.rs`.
//!
//! After a reset, whoever did it, the state of the lines in use is restored: values, directions,
//! interrupts.
//!
//! A device may ask for a reset (`DEVICE_NEEDS_RESET`), one of its queues may turn out to be
//! broken, or it may leave so many requests unanswered that few slots are left. Each reset makes
//! callers in flight fail, so there are only a few in a row, each after a longer time than the one
//! before. The row ends when there was no reset for a while.

use kernel::{
    gpio::virtio_trace,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic,
        Msecs, //
    },
    virtio::{
        self,
        Scope, //
    },
    workqueue, //
};

use crate::{
    lines::Line,
    wire::Request,
    VirtioGpio, //
};

/// How many resets in a row there are.
const RESETS: u32 = 4;

/// The longest time in milliseconds from the first reset to the second. From each to the next it is
/// [`FACTOR`] times as long.
const BACKOFF_MS: i64 = 100;
const FACTOR: i64 = 4;

/// Time in milliseconds without a reset that ends the row.
const QUIET_MS: i64 = 60_000;

/// For how long in milliseconds interrupts are restored with the lock of the device held.
const SYNC_MS: i64 = 5000;

/// Time in milliseconds after which a device is looked at again whose lock was held.
const BUSY_MS: Msecs = 20;

/// The resets of a device so far.
#[derive(Default)]
pub(crate) struct Resets {
    backoff_ms: i64,
    /// How many there were in this row.
    row: u32,
    /// When the last one was.
    last: Option<Instant<Monotonic>>,
    /// All [`RESETS`] were used, the device still needs one, and that was logged.
    given_up: bool,
    /// The device was reset, and the state of its lines is not restored yet.
    unrestored: bool,
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
            ..Self::default()
        }
    }

    /// Ends the row.
    fn forget(&mut self) {
        self.row = 0;
        self.last = None;
        self.given_up = false;
    }

    /// Returns after what time the device may be reset, [`None`] if there were [`RESETS`] already.
    /// Counts the reset if that is now.
    fn next(&mut self, now: Instant<Monotonic>) -> Option<Delta> {
        let since = self.last.map_or(QUIET_MS, |last| (now - last).as_millis());

        if since >= QUIET_MS {
            self.forget();
        }
        if self.row == RESETS {
            return None;
        }
        if self.row > 0 {
            let wait = self.backoff_ms * FACTOR.pow(self.row - 1) - since;

            if wait > 0 {
                return Some(Delta::from_millis(wait));
            }
        }

        self.row += 1;
        self.last = Some(now);
        Some(Delta::ZERO)
    }
}

impl VirtioGpio {
    /// Restores the state of the lines in use, and lets other requests go.
    ///
    /// # Errors
    ///
    /// Whatever kept requests from being sent: the device has to be reset again. One that refuses,
    /// or is slow, is no error.
    ///
    /// # Context
    ///
    /// Process context, with the lock of the device held; sleeps.
    fn replay(self: &Arc<Self>, resets: &mut Resets) -> Result {
        resets.unrestored = true;
        // Before requests go again: those that wait in `sync_line()` are for the state before.
        for line in 0..self.ngpio {
            self.update(line, Line::reset);
        }

        let mut requests = (0..self.ngpio)
            .flat_map(|line| self.update(line, |state| state.replay(line)))
            .flatten();

        match self.request_all(Scope::Replay, &mut || requests.next(), &mut |_, _| ()) {
            Err(err) if err == EIO || err == EPROTO || err == ETIMEDOUT => (),
            ret => ret?,
        }

        (self.requests).start_if(|| !self.is_changed())?;
        resets.unrestored = false;

        let since = Instant::<Monotonic>::now();
        let is_soon = || since.elapsed() < Delta::from_millis(SYNC_MS);

        // One that is not answered is enough to wait for here.
        if !(0..self.ngpio).all(|line| is_soon() && self.sync_line(line, Scope::Replay)) {
            self.retry_soon();
        }
        self.resume_events();
        Ok(())
    }

    /// Has only those interrupts enabled that are to wake the system up. Returns `false` if that is
    /// not possible, or no interrupt is in use. `may_wake()` of the driver.
    ///
    /// Requests are not held: a consumer that is resumed before the controller waits for them.
    pub(crate) fn sleep(self: &Arc<Self>) -> bool {
        let in_use = |line| self.update(line, |state| state.irq.sleep());
        let count = (0..self.ngpio).filter(|line| in_use(*line)).count();

        // The lock of the device is held: a reset that is due, for which events are held, waits.
        if count == 0 || self.eventq.with(|_, events| events.held) {
            return false;
        }
        // When the device answers the last request it has taken the types back.
        let mut last = Some(Request::get_direction(0));

        (0..self.ngpio).all(|line| self.sync_line(line, Scope::Any))
            && (self.request_all(Scope::Any, &mut || last.take(), &mut |_, _| ())).is_ok()
    }

    /// Restores a device that the core has reset: `restore()` of the driver.
    pub(crate) fn resume(self: &Arc<Self>) -> Result {
        let mut resets = self.resets.lock();

        self.changed.store(false, Relaxed);
        resets.forget();
        if let Err(err) = self.replay(&mut resets) {
            dev_warn!(self.vdev.as_ref(), "cannot restore the device: {:?}\n", err);
            self.check_device(0);
        }
        Ok(())
    }

    /// Notes that the device may need a reset, and sends nothing until that was looked at.
    /// `config_changed()` of the driver; any context.
    pub(crate) fn config_changed(self: &Arc<Self>) {
        // Ordered by the locks of the queues, under which it is read.
        self.changed.store(true, Relaxed);
        self.hold();
        self.check_device(0);
    }

    /// Returns `true` if `config_changed()` has run since the device was looked at. The work item
    /// that it has queued ends the hold.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed.load(Relaxed)
    }

    /// Has the device looked at if a request may have failed because it needs a reset.
    pub(crate) fn check_queue(self: &Arc<Self>) {
        if self.requests.needs_reset() {
            self.check_device(0);
        }
    }

    /// Has a work item look whether the device needs a reset. Any context.
    pub(crate) fn check_device(self: &Arc<Self>, delay_ms: Msecs) {
        // It may be pending already, and has not looked yet; or disabled, because the driver is
        // unbound.
        let _ = workqueue::system_long()
            .enqueue_delayed::<_, 2>(self.clone(), msecs_to_jiffies(delay_ms));
    }

    fn hold(&self) {
        self.requests.hold();
        self.eventq.with(|_, events| events.held = true);
    }

    /// Looks whether the device needs a reset, and resets it. The work item.
    pub(crate) fn recover(self: &Arc<Self>) {
        match self.binding.try_lock(|vdev| self.try_reset(vdev)) {
            Ok(Some(delay)) => {
                // CAST: It is less than a minute.
                self.check_device(delay.as_millis() as Msecs + 1);
            }
            Err(err) if err == EAGAIN => self.check_device(BUSY_MS),
            // A device that is suspended is restored when it is resumed.
            Ok(None) | Err(_) => (),
        }
    }

    /// Resets the device if it needs that. Returns after what time it has to be looked at again.
    fn try_reset(self: &Arc<Self>, vdev: &virtio::Locked<'_>) -> Option<Delta> {
        let mut resets = self.resets.lock();
        self.changed.store(false, Relaxed);

        let is_dead = resets.unrestored || vdev.needs_reset();
        let needed = is_dead || self.requests.needs_reset();
        let next = needed.then(|| resets.next(Instant::now()));

        let Some(delay) = next.flatten() else {
            if !is_dead {
                // A device that keeps half of the slots may still answer in the others.
                let _ = (self.requests).start_if(|| !self.is_changed());
                self.resume_events();
            } else {
                self.requests.end();
                self.end_events();
                if !core::mem::replace(&mut resets.given_up, true) {
                    dev_err!(
                        vdev.as_ref(),
                        "the device still needs a reset: unbind and bind the driver\n"
                    );
                }
            }
            return None;
        };

        self.hold();
        if !delay.is_zero() {
            return Some(delay);
        }
        if resets.row == 1 {
            let why = if is_dead {
                "needs a reset"
            } else {
                "does not answer"
            };

            dev_warn!(vdev.as_ref(), "resetting the device: it {}\n", why);
        }
        virtio_trace::reset(vdev.as_ref(), resets.row);
        // If it fails, then the device needs another reset, or is gone: look again, after others
        // who wait for the lock of the device.
        let _ = vdev.reset().and_then(|()| self.replay(&mut resets));
        Some(Delta::ZERO)
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
