// SPDX-License-Identifier: GPL-2.0

//! When waits for the device are over.
//!
//! A timer for each wait would cost more than the rest of what the driver does for a message, and
//! next to none of them would ever fire. So the waits have none. One for all of them goes off now
//! and then as long as there are waits, and takes the time that has passed from what each of them
//! has left. It is started by the first wait, and nothing more is to be done for those that come
//! until it goes off.

use kernel::time::Jiffies;

/// How many waits in a row may time out before the device is taken to be silent.
const MAX_TIMEOUTS: u32 = 3;

/// How often the timer goes off at least before a wait is over.
const LOOKS: Jiffies = 4;

/// What a wait has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left(Jiffies);

impl Left {
    /// Takes `passed` away. Returns whether this has been the last of it.
    pub(crate) fn pass(&mut self, passed: Jiffies) -> bool {
        let before = self.0;

        self.0 = before.saturating_sub(passed);
        before > 0 && self.0 == 0
    }

    /// Returns whether the wait is over.
    #[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
    fn is_over(&self) -> bool {
        self.0 == 0
    }
}

/// The times of all waits. They are in jiffies, and none is zero.
pub(crate) struct Watch {
    /// For how long an answer is waited for, and when the device is silent.
    patience: Jiffies,
    silent: Jiffies,
    /// The timer goes off at least this often.
    most: Jiffies,
    /// How many waits in a row have timed out.
    timeouts: u32,
    /// After what time the timer goes off, counted from when it was started; [`None`] if it was
    /// not.
    due: Option<Jiffies>,
    /// There were waits since it was started.
    used: bool,
}

impl Watch {
    pub(crate) fn new(patience: Jiffies, silent: Jiffies, most: Jiffies) -> Self {
        Self {
            patience,
            silent: silent.min(patience),
            most,
            timeouts: 0,
            due: None,
            used: false,
        }
    }

    /// Returns for how long an answer is waited for. A device that did not answer several times in
    /// a row gets little time until it answers again.
    pub(crate) fn patience(&self) -> Jiffies {
        if self.timeouts < MAX_TIMEOUTS {
            self.patience
        } else {
            self.silent
        }
    }

    /// Returns after what time the timer is to go off.
    #[cold]
    fn pause(&self) -> Jiffies {
        (self.patience() / LOOKS).clamp(1, self.most)
    }

    /// A wait begins. Returns what it has left, and whether the timer is to be started.
    #[inline]
    pub(crate) fn begin(&mut self) -> (Left, bool) {
        self.used = true;

        match self.due {
            // All of this will count as passed when the timer goes off, and some has already.
            Some(due) => (Left(self.patience() + due), false),
            None => {
                self.due = Some(self.pause());
                (Left(self.patience()), true)
            }
        }
    }

    /// Returns after what time the timer goes off, counted from when it is started, if it is.
    pub(crate) fn due(&self) -> Option<Jiffies> {
        self.due
    }

    /// Notes that the timer has gone off. It is started again when there are waits, with `waiting`,
    /// and when there were some, because others may follow.
    pub(crate) fn again(&mut self, waiting: bool) {
        let used = core::mem::take(&mut self.used);

        self.due = (waiting || used).then(|| self.pause());
    }

    /// A wait has timed out.
    pub(crate) fn timed_out(&mut self) {
        self.timeouts = self.timeouts.saturating_add(1);
    }

    /// The device has answered.
    pub(crate) fn answered(&mut self) {
        self.timeouts = 0;
    }

    /// Returns how many waits in a row have timed out.
    pub(crate) fn timeouts(&self) -> u32 {
        self.timeouts
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(gpio_virtio_watch)]
mod tests {
    use super::*;

    const PATIENCE: Jiffies = 1000;
    const SILENT: Jiffies = 100;
    const MOST: Jiffies = 60;

    /// A timer, and one wait that begins at `start`. Time passes in single jiffies.
    struct Clock {
        watch: Watch,
        now: Jiffies,
        fires: Option<Jiffies>,
        fired: u32,
    }

    impl Clock {
        fn new() -> Self {
            Self {
                watch: Watch::new(PATIENCE, SILENT, MOST),
                now: 0,
                fires: None,
                fired: 0,
            }
        }

        fn begin(&mut self) -> Left {
            let (left, start) = self.watch.begin();

            if start {
                self.fires = self.watch.due().map(|due| self.now + due);
            }
            left
        }

        /// One jiffy later. Returns whether `left` ends.
        fn step(&mut self, left: &mut Left) -> bool {
            self.now += 1;
            if self.fires != Some(self.now) {
                return false;
            }

            self.fired += 1;
            let ends = left.pass(self.watch.due().unwrap_or(0));
            if ends {
                self.watch.timed_out();
            }
            self.watch.again(!left.is_over());
            self.fires = self.watch.due().map(|due| self.now + due);
            ends
        }

        /// Returns how long a wait is that begins now, if it ends at all.
        fn wait(&mut self) -> Option<Jiffies> {
            let start = self.now;
            let mut left = self.begin();

            (0..10 * PATIENCE)
                .any(|_| self.step(&mut left))
                .then(|| self.now - start)
        }
    }

    #[test]
    fn wait_ends_after_the_timeout_and_not_much_later() {
        // Whenever it begins, relative to the timer.
        for after in 0..2 * MOST {
            let mut clock = Clock::new();
            let mut other = clock.begin();

            for _ in 0..after {
                clock.step(&mut other);
            }

            let took = clock.wait().unwrap_or(0);
            assert!((PATIENCE..=PATIENCE + 2 * MOST).contains(&took));
        }
    }

    #[test]
    fn timer_goes_off_as_often_as_it_has_to() {
        let mut clock = Clock::new();

        assert_eq!(clock.wait(), Some(PATIENCE.next_multiple_of(MOST)));
        assert_eq!(clock.fired, PATIENCE.div_ceil(MOST) as u32);
    }

    #[test]
    fn short_timeouts_are_kept_as_well() {
        for patience in 1..20 {
            let mut clock = Clock::new();

            clock.watch = Watch::new(patience, SILENT, MOST);
            let took = clock.wait().unwrap_or(0);
            assert!((patience..=patience + patience / LOOKS).contains(&took));
        }
    }

    #[test]
    fn timer_stops_when_nobody_waits() {
        let mut clock = Clock::new();
        let mut left = clock.begin();

        // The answer came at once.
        left.pass(PATIENCE);
        for _ in 0..10 * MOST {
            clock.step(&mut left);
        }
        // Once for the wait, and once because others may have followed.
        assert_eq!((clock.fires, clock.fired), (None, 2));
        // It is started again.
        let _ = clock.begin();
        assert!(clock.fires.is_some());
    }

    #[test]
    fn many_waits_start_one_timer() {
        let mut clock = Clock::new();
        let mut over = Left::default();

        for _ in 0..100 * MOST {
            let _ = clock.begin();
            clock.step(&mut over);
        }
        assert_eq!(clock.fired, 100);
    }

    #[test]
    fn silent_device_gets_little_time_until_it_answers() {
        let mut clock = Clock::new();

        for _ in 0..MAX_TIMEOUTS {
            assert!(clock.wait() >= Some(PATIENCE));
        }
        // The timer was started for long, the last time.
        for _ in 0..3 {
            let took = clock.wait().unwrap_or(0);
            assert!((SILENT..=SILENT + 2 * MOST).contains(&took));
        }
        let took = clock.wait().unwrap_or(0);
        assert!((SILENT..=SILENT + 2 * SILENT / LOOKS).contains(&took));
        clock.watch.answered();
        assert!(clock.wait() >= Some(PATIENCE));
    }

    #[test]
    fn wait_ends_once() {
        let mut left = Left(10);

        assert!(!left.pass(9));
        assert!(!left.is_over());
        assert!(left.pass(9));
        assert!(left.is_over());
        assert!(!left.pass(9));
    }
}
