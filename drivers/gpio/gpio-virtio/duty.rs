// SPDX-License-Identifier: GPL-2.0

//! How much of a processor's time a device may take.
//!
//! A device that always has another event keeps a processor busy. Work for it is done in turns, and
//! after a turn that was too long there is a rest of the same length. So half of the time is left
//! for others, whatever the device does, and however long the handlers of consumers take.
//!
//! A device that interrupts for each event as soon as the last one was handled leaves next to
//! nothing of the time in between: that goes into taking interrupts, which is work for the device,
//! too.

use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};

/// A turn may take so many milliseconds without a rest.
const TURN_MS: i64 = 4;

/// Others get nothing done in fewer microseconds than that between two pieces of work.
const GAP_US: i64 = 40;

/// Turns begin anew after so many milliseconds.
const WINDOW_MS: i64 = 20;

/// What a device has taken of the time since the turn has begun.
pub(crate) struct Duty {
    begin: Option<Instant<Monotonic>>,
    /// The end of the last piece of work.
    end: Option<Instant<Monotonic>>,
    taken: Delta,
    resting: bool,
}

impl Duty {
    pub(crate) const fn new() -> Self {
        Self {
            begin: None,
            end: None,
            taken: Delta::ZERO,
            resting: false,
        }
    }

    /// Something was done for the device, from `start` to `end`. Returns how long to rest until
    /// [`Duty::rested`], if it was too much.
    #[must_use]
    pub(crate) fn worked(
        &mut self,
        start: Instant<Monotonic>,
        end: Instant<Monotonic>,
    ) -> Option<Delta> {
        let window = Delta::from_millis(WINDOW_MS);
        let begin = match self.begin {
            Some(begin) if start - begin < window => {
                let gap = self.end.map_or(Delta::ZERO, |end| start - end);

                // Two processors may work at the same time.
                if !gap.is_negative() && gap < Delta::from_micros(GAP_US) {
                    self.taken += gap;
                }
                begin
            }
            _ => {
                self.taken = Delta::ZERO;
                start
            }
        };

        self.begin = Some(begin);
        self.end = Some(end);
        self.taken += end - start;

        let too_long = self.taken >= Delta::from_millis(TURN_MS);
        let too_much = self.taken + self.taken > end - begin;

        if !too_long || !too_much {
            return None;
        }

        self.begin = None;
        self.resting = true;
        Some(self.taken)
    }

    /// The rest is over.
    pub(crate) fn rested(&mut self) {
        self.resting = false;
    }

    /// Returns whether nothing is to be done for the device now.
    pub(crate) fn is_resting(&self) -> bool {
        self.resting
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(gpio_virtio_duty)]
mod tests {
    use super::*;

    /// A device and the time in microseconds.
    struct Device {
        duty: Duty,
        start: Instant<Monotonic>,
        us: i64,
    }

    impl Device {
        fn new() -> Self {
            Self {
                duty: Duty::new(),
                start: Instant::now(),
                us: 0,
            }
        }

        fn now(&self) -> Instant<Monotonic> {
            self.start + Delta::from_micros(self.us)
        }

        /// Works for so long and returns how long to rest.
        fn work(&mut self, us: i64) -> i64 {
            let start = self.now();

            self.us += us;

            let end = self.now();

            self.duty
                .worked(start, end)
                .map_or(0, |rest| rest.as_micros_ceil())
        }

        /// Works `busy` of each `period` microseconds if it may, for a second. Returns how much of
        /// the time was work, in per cent.
        fn second_of(&mut self, busy: i64, period: i64) -> i64 {
            let mut worked = 0;

            while self.us < 1_000_000 {
                let rest = self.work(busy);

                worked += busy;
                if self.duty.is_resting() {
                    self.us += rest;
                    self.duty.rested();
                } else {
                    self.us += period - busy;
                }
            }
            worked * 100 / self.us
        }
    }

    #[test]
    fn little_work_needs_no_rest() {
        let mut device = Device::new();

        for _ in 0..100 {
            assert_eq!(device.work(100), 0);
            device.us += 900;
        }
        assert!(!device.duty.is_resting());
    }

    #[test]
    fn short_burst_needs_no_rest() {
        let mut device = Device::new();

        for _ in 0..10 {
            assert_eq!(device.work(3_900), 0);
            device.us += 100_000;
        }
    }

    #[test]
    fn rest_is_as_long_as_the_turn() {
        let mut device = Device::new();

        for _ in 0..39 {
            assert_eq!(device.work(100), 0);
        }
        assert_eq!(device.work(100), 4_000);
        assert!(device.duty.is_resting());
        device.duty.rested();
        assert!(!device.duty.is_resting());
    }

    #[test]
    fn one_long_turn_is_made_up_for() {
        let mut device = Device::new();

        assert_eq!(device.work(500_000), 500_000);
    }

    #[test]
    fn storm_gets_half_of_the_time() {
        for (busy, period) in [(10, 10), (100, 101), (2_500, 2_501), (50_000, 50_000)] {
            let share = Device::new().second_of(busy, period);

            assert!((45..=50).contains(&share));
        }
    }

    #[test]
    fn time_that_is_too_short_for_others_counts() {
        for (busy, period) in [(2, 10), (1, 40), (10, 45)] {
            let mut device = Device::new();
            let mut rests = 0;

            for _ in 0..1_000 {
                rests += device.work(busy);
                device.us += period - busy;
            }
            assert!(rests > 0);
        }
    }

    #[test]
    fn two_may_work_at_the_same_time() {
        let mut device = Device::new();

        assert_eq!(device.work(3_000), 0);
        device.us -= 2_000;
        assert_eq!(device.work(3_000), 6_000);
    }

    #[test]
    fn less_than_half_is_not_slowed_down() {
        assert_eq!(Device::new().second_of(40, 100), 40);
        assert_eq!(Device::new().second_of(1_000, 2_500), 40);
    }
}
