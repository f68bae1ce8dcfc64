// SPDX-License-Identifier: GPL-2.0

//! For how long to look for an answer before going to sleep.
//!
//! A fast device answers sooner than an interrupt gets through and a task wakes up. A slow one must
//! not have a processor wait for it. So how long is looked follows the time that answers take, and
//! when that was in vain several messages go without, twice as many each time.

use kernel::time::Delta;

/// Answers that took up to this many times longer than usual are waited for.
const SLACK: i64 = 4;

/// An answer changes what is usual by this part of the difference.
const WEIGHT: i64 = 8;

/// For how many messages polling rests at most, as a power of two.
const MAX_REST: u32 = 8;

/// When to poll, and for how long.
pub(crate) struct Poll {
    /// For how long at most, in nanoseconds; 0 if not at all.
    limit: i64,
    /// How long an answer takes.
    usual: i64,
    /// How many times in a row polling was in vain.
    misses: u32,
    /// How many messages go without polling.
    rest: u32,
}

impl Poll {
    pub(crate) fn new(limit: Delta) -> Self {
        let limit = limit.as_nanos();

        Self {
            limit,
            usual: limit,
            misses: 0,
            rest: 0,
        }
    }

    /// Returns whether there is any polling.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// A message was sent. Returns whether its answer is to be polled for.
    pub(crate) fn begin(&mut self) -> bool {
        let rests = self.rest > 0;

        self.rest = self.rest.saturating_sub(1);
        self.is_on() && !rests
    }

    /// Returns whether to go on after this time without an answer.
    pub(crate) fn goes_on(&self, after: Delta) -> bool {
        after.as_nanos() < self.limit.min(SLACK * self.usual)
    }

    /// The answer has come after this time.
    pub(crate) fn hit(&mut self, after: Delta) {
        self.misses = 0;
        self.usual += (after.as_nanos().min(self.limit) - self.usual) / WEIGHT;
    }

    /// There was no answer. Next time it is waited for as long as it may be.
    pub(crate) fn missed(&mut self) {
        self.rest = 1 << self.misses.min(MAX_REST);
        self.misses = self.misses.saturating_add(1);
        self.usual = self.limit;
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(gpio_virtio_poll)]
mod tests {
    use super::*;

    const LIMIT: Delta = Delta::from_micros(100);

    /// Sends messages that are answered after `us` microseconds. Returns for how many of them was
    /// polled, and for how many microseconds in all.
    fn send(poll: &mut Poll, count: u32, us: i64) -> (u32, i64) {
        let (mut polled, mut spent) = (0, 0);

        for _ in 0..count {
            if !poll.begin() {
                continue;
            }
            polled += 1;

            let mut after = 0;

            while after < us && poll.goes_on(Delta::from_micros(after)) {
                after += 1;
            }
            spent += after;
            if after == us {
                poll.hit(Delta::from_micros(us));
            } else {
                poll.missed();
            }
        }
        (polled, spent)
    }

    #[test]
    fn fast_device_is_always_polled() {
        assert_eq!(send(&mut Poll::new(LIMIT), 1000, 5), (1000, 5000));
    }

    #[test]
    fn nothing_is_polled_when_it_is_off() {
        let mut poll = Poll::new(Delta::ZERO);

        assert!(!poll.is_on());
        assert_eq!(send(&mut poll, 1000, 0), (0, 0));
    }

    #[test]
    fn slow_device_is_hardly_ever_polled() {
        let mut poll = Poll::new(LIMIT);
        // After 1, 2, 4, ... messages that go without.
        let (polled, _) = send(&mut poll, 9 + 255, 1000);

        assert_eq!(polled, 9);
        let (polled, spent) = send(&mut poll, 10 * 257, 1000);
        assert_eq!((polled, spent), (10, 1000));
    }

    #[test]
    fn limit_is_kept() {
        let poll = Poll::new(LIMIT);

        assert!(poll.goes_on(Delta::from_micros(99)));
        assert!(!poll.goes_on(LIMIT));
    }

    #[test]
    fn little_is_spent_on_what_is_unusual() {
        let mut poll = Poll::new(LIMIT);

        send(&mut poll, 100, 5);
        let (polled, spent) = send(&mut poll, 1, 1000);
        assert_eq!(polled, 1);
        assert!((20..30).contains(&spent));
    }

    #[test]
    fn device_that_has_become_slower_is_polled_again() {
        let mut poll = Poll::new(LIMIT);

        send(&mut poll, 100, 5);
        // One is missed, and one goes without.
        assert_eq!(send(&mut poll, 100, 80).0, 99);
    }

    #[test]
    fn device_that_has_become_fast_is_polled_again() {
        let mut poll = Poll::new(LIMIT);

        send(&mut poll, 10_000, 1000);
        send(&mut poll, 257, 5);
        assert_eq!(send(&mut poll, 100, 5).0, 100);
    }
}
