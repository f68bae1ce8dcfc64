// SPDX-License-Identifier: GPL-2.0

//! Messages that a device has, and that nobody waits for any more.
//!
//! A slow device answers them some time. One that has lost them never does, and the slots that they
//! have are of no use until it is reset. Nothing tells the two apart but time.

use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};

/// How many messages there are that nobody waits for, and since when they are too many.
pub(crate) struct Lost {
    count: usize,
    /// Since when they have half of all slots, without one of them having come back.
    since: Option<Instant<Monotonic>>,
}

impl Lost {
    pub(crate) const fn new() -> Self {
        Self {
            count: 0,
            since: None,
        }
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn are_many(&self, slots: usize) -> bool {
        2 * self.count >= slots
    }

    /// One more of a number of `slots` has such a message.
    pub(crate) fn add(&mut self, slots: usize, now: Instant<Monotonic>) {
        self.count += 1;
        if self.since.is_none() && self.are_many(slots) {
            self.since = Some(now);
        }
    }

    /// One of them has come back.
    pub(crate) fn remove(&mut self, slots: usize, now: Instant<Monotonic>) {
        self.count = self.count.saturating_sub(1);
        self.since = self.are_many(slots).then_some(now);
    }

    /// Tells, when something has timed out, whether they are taken to be lost: there is nothing
    /// else in all of the `slots`, or in half of them for longer than `patience`.
    pub(crate) fn are_lost(&self, slots: usize, patience: Delta, now: Instant<Monotonic>) -> bool {
        self.count >= slots || self.since.is_some_and(|since| now - since > patience)
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(gpio_virtio_lost)]
mod tests {
    use super::*;

    const SLOTS: usize = 8;
    const PATIENCE: Delta = Delta::from_millis(100);

    /// Messages and the time in milliseconds.
    struct Device {
        lost: Lost,
        start: Instant<Monotonic>,
        ms: i64,
    }

    impl Device {
        fn with(count: usize) -> Self {
            let mut device = Self {
                lost: Lost::new(),
                start: Instant::now(),
                ms: 0,
            };

            for _ in 0..count {
                device.add();
            }
            device
        }

        fn now(&self) -> Instant<Monotonic> {
            self.start + Delta::from_millis(self.ms)
        }

        fn add(&mut self) {
            self.lost.add(SLOTS, self.now());
        }

        fn remove(&mut self) {
            self.lost.remove(SLOTS, self.now());
        }

        fn are_lost(&self) -> bool {
            self.lost.are_lost(SLOTS, PATIENCE, self.now())
        }
    }

    #[test]
    fn none_is_lost_in_the_beginning() {
        let mut device = Device::with(0);

        device.ms = 10_000;
        assert!(!device.are_lost());
    }

    #[test]
    fn all_are_lost_at_once() {
        let mut device = Device::with(SLOTS - 1);

        assert!(!device.are_lost());
        device.add();
        assert!(device.are_lost());
    }

    #[test]
    fn half_are_lost_after_a_while() {
        let mut device = Device::with(SLOTS / 2);

        device.ms = 100;
        assert!(!device.are_lost());
        device.ms = 101;
        assert!(device.are_lost());
    }

    #[test]
    fn few_are_never_lost() {
        let mut device = Device::with(SLOTS / 2 - 1);

        device.ms = 10_000;
        assert!(!device.are_lost());
    }

    #[test]
    fn time_counts_from_the_half_on() {
        let mut device = Device::with(SLOTS / 2 - 1);

        device.ms = 1000;
        device.add();
        device.ms = 1050;
        device.add();
        device.ms = 1100;
        assert!(!device.are_lost());
        device.ms = 1101;
        assert!(device.are_lost());
    }

    #[test]
    fn late_answers_are_a_sign_of_life() {
        let mut device = Device::with(SLOTS / 2 + 2);

        for _ in 0..10 {
            device.ms += 99;
            device.remove();
            device.add();
            assert!(!device.are_lost());
        }
        device.ms += 101;
        assert!(device.are_lost());
    }

    #[test]
    fn below_the_half_they_are_forgotten() {
        let mut device = Device::with(SLOTS / 2);

        device.remove();
        device.ms = 10_000;
        assert!(!device.are_lost());
        device.add();
        assert!(!device.are_lost());
    }
}
