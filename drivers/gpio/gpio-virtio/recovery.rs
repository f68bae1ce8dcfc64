// SPDX-License-Identifier: GPL-2.0

//! How often a device may be reset.
//!
//! A device can ask for a reset, or lose messages, whenever it likes. Each reset makes those who
//! wait for the device fail, and costs time, so there are only a few in a row, each after a longer
//! wait than the one before. Then the device is given up on; one that is just silent is tried again
//! now and then, because it may begin to answer at any time. The row ends when there was no reset
//! for a while.

use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};

/// How many resets in a row there are.
const RESETS: u8 = 4;

/// The time from the first reset to the second, as a fraction of the time that the device has for
/// an answer. From each to the next it takes [`FACTOR`] times as long.
const FRACTION: i64 = 50;
const FACTOR: i64 = 4;

/// Time in milliseconds from one reset to the next that a silent device has after the row.
const REST_MS: i64 = 10_000;

/// Time in milliseconds without a reset that ends the row.
const QUIET_MS: i64 = 60_000;

/// Why a device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It asks for one, or the last one has failed. It is of no use without.
    Demand,
    /// It has lost messages, or does not answer. It may begin to answer at any time.
    Silence,
}

/// What is to be done about a device that needs a reset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Reset it.
    Reset,
    /// Leave it alone, and ask again after this time.
    Wait(Delta),
    /// Go on without a reset, and ask again the next time.
    Rest,
    /// Leave it alone for good.
    GiveUp,
}

/// The resets of a device so far.
pub(crate) struct Recovery {
    /// The time in milliseconds from the first reset to the second.
    wait_ms: i64,
    /// How many there were in a row.
    row: u8,
    /// When the last one was.
    last: Option<Instant<Monotonic>>,
    /// What makes a reset necessary that was not done yet, or has not helped.
    pending: Option<Cause>,
    given_up: bool,
}

impl Recovery {
    /// Returns the state of a device that was not reset yet, and has `timeout_ms` milliseconds for
    /// an answer.
    pub(crate) fn new(timeout_ms: u32) -> Self {
        Self {
            wait_ms: (i64::from(timeout_ms) / FRACTION).max(1),
            row: 0,
            last: None,
            pending: None,
            given_up: false,
        }
    }

    /// Forgets all resets: somebody else has reset the device.
    pub(crate) fn forget(&mut self) {
        self.row = 0;
        self.last = None;
        self.pending = None;
        self.given_up = false;
    }

    /// The device needs a reset. To be called again until it has had one that helped.
    #[must_use]
    pub(crate) fn needed(&mut self, cause: Cause, now: Instant<Monotonic>) -> Verdict {
        let since = self.last.map(|last| now - last);

        if since.is_some_and(|since| since >= Delta::from_millis(QUIET_MS)) {
            self.row = 0;
        }
        if self.row == RESETS {
            self.given_up |= cause == Cause::Demand;
        }
        if self.given_up {
            self.pending = None;
            return Verdict::GiveUp;
        }
        if self.row == RESETS && since.is_some_and(|since| since < Delta::from_millis(REST_MS)) {
            self.pending = None;
            return Verdict::Rest;
        }

        self.pending = Some(cause);

        if let (Some(since), Some(nth)) = (since, self.row.checked_sub(1)) {
            let wait = Delta::from_millis(self.wait_ms * FACTOR.pow(nth.into()));

            if since < wait {
                return Verdict::Wait(wait - since);
            }
        }

        self.row = RESETS.min(self.row + 1);
        self.last = Some(now);
        Verdict::Reset
    }

    /// The reset has helped.
    pub(crate) fn done(&mut self) {
        self.pending = None;
    }

    /// Returns why the device still needs a reset, if it does.
    pub(crate) fn pending(&self) -> Option<Cause> {
        self.pending
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(gpio_virtio_recovery)]
mod tests {
    use super::*;

    /// A device and the time in milliseconds.
    struct Device {
        recovery: Recovery,
        start: Instant<Monotonic>,
        ms: i64,
    }

    impl Device {
        fn new() -> Self {
            Self {
                recovery: Recovery::new(5_000),
                start: Instant::now(),
                ms: 0,
            }
        }

        fn now(&self) -> Instant<Monotonic> {
            self.start + Delta::from_millis(self.ms)
        }

        fn needed(&mut self) -> Verdict {
            let now = self.now();

            self.recovery.needed(Cause::Demand, now)
        }

        /// Passes the time until the next reset. Returns it, or nothing if there is none.
        fn until_reset(&mut self) -> Option<i64> {
            let from = self.ms;

            loop {
                match self.needed() {
                    Verdict::Reset => return Some(self.ms - from),
                    Verdict::Wait(delta) => self.ms += delta.as_millis(),
                    Verdict::Rest | Verdict::GiveUp => return None,
                }
            }
        }
    }

    #[test]
    fn first_reset_is_at_once() {
        let mut device = Device::new();

        assert_eq!(device.needed(), Verdict::Reset);
        assert_eq!(device.recovery.pending(), Some(Cause::Demand));
        device.recovery.done();
        assert_eq!(device.recovery.pending(), None);
    }

    #[test]
    fn resets_in_a_row_are_slower_and_slower() {
        let mut device = Device::new();

        assert_eq!(device.until_reset(), Some(0));
        assert_eq!(device.until_reset(), Some(100));
        assert_eq!(device.until_reset(), Some(400));
        assert_eq!(device.until_reset(), Some(1600));
        assert_eq!(device.until_reset(), None);
        assert_eq!(device.recovery.pending(), None);
    }

    #[test]
    fn patience_with_a_device_follows_its_timeout() {
        for (timeout_ms, wait_ms) in [(0, 1), (300, 6), (5_000, 100)] {
            let mut device = Device::new();

            device.recovery = Recovery::new(timeout_ms);
            assert_eq!(device.until_reset(), Some(0));
            assert_eq!(device.until_reset(), Some(wait_ms));
        }
    }

    #[test]
    fn somebody_else_may_help() {
        let mut device = Device::new();

        while device.until_reset().is_some() {}
        device.recovery.forget();
        assert_eq!(device.recovery.pending(), None);
        assert_eq!(device.until_reset(), Some(0));
    }

    #[test]
    fn waiting_is_no_reset() {
        let mut device = Device::new();

        assert_eq!(device.needed(), Verdict::Reset);
        device.ms = 40;
        for _ in 0..10 {
            assert_eq!(device.needed(), Verdict::Wait(Delta::from_millis(60)));
            assert_eq!(device.recovery.pending(), Some(Cause::Demand));
        }
        device.ms = 100;
        assert_eq!(device.needed(), Verdict::Reset);
    }

    #[test]
    fn quiet_ends_the_row() {
        let mut device = Device::new();

        for _ in 0..10 {
            assert_eq!(device.until_reset(), Some(0));
            assert_eq!(device.until_reset(), Some(100));
            device.recovery.done();
            device.ms += 60_000;
        }
    }

    #[test]
    fn short_quiet_does_not_end_the_row() {
        let mut device = Device::new();

        for _ in 0..RESETS {
            let _ = device.until_reset();
            device.recovery.done();
            device.ms += 50_000;
        }
        assert_eq!(device.until_reset(), None);
    }

    #[test]
    fn given_up_for_good() {
        let mut device = Device::new();

        while device.until_reset().is_some() {}
        device.ms += 600_000;
        assert_eq!(device.needed(), Verdict::GiveUp);
    }

    #[test]
    fn silent_device_is_not_given_up() {
        let mut device = Device::new();

        for _ in 0..RESETS {
            let _ = device.until_reset();
        }
        for _ in 0..20 {
            for _ in 0..2 {
                let now = device.now();

                assert_eq!(device.recovery.needed(Cause::Silence, now), Verdict::Rest);
                assert_eq!(device.recovery.pending(), None);
                device.ms += 5_000;
            }

            let now = device.now();

            assert_eq!(device.recovery.needed(Cause::Silence, now), Verdict::Reset);
        }
        assert_eq!(device.needed(), Verdict::GiveUp);
    }
}
