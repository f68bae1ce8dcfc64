// SPDX-License-Identifier: GPL-2.0-only

//! Whether to look for further requests rather than to sleep until the guest's next notification.

use std::time::{Duration, Instant};

/// The longest patience: a guest takes a processor with one request in this time.
pub const LONGEST: Duration = Duration::from_millis(10);

/// An adaptive busy poll. A request that comes alone costs no more than without.
#[derive(Debug)]
pub struct Poll {
    /// How long to look after the last request; zero to never do so.
    patience: Duration,
    last: Option<Instant>,
    until: Option<Instant>,
}

impl Poll {
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            last: None,
            until: None,
        }
    }

    /// Requests have come. Looks for more if those before came not long ago.
    pub fn found(&mut self, now: impl FnOnce() -> Instant) {
        if self.patience.is_zero() {
            return;
        }
        let now = now();
        let last = self.last.replace(now);
        let quick = last.is_some_and(|last| now.duration_since(last) <= self.patience);
        self.until = quick.then(|| now + self.patience);
    }

    /// Ends the looking when nothing has come for too long.
    pub fn expire(&mut self, now: impl FnOnce() -> Instant) {
        if self.until.is_some_and(|until| until <= now()) {
            self.until = None;
        }
    }

    /// Whether to look.
    pub fn is_on(&self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_micros(50);

    #[test]
    fn looks_while_requests_come_quickly() {
        let start = Instant::now();
        let mut poll = Poll::new(PATIENCE);
        poll.found(|| start);
        assert!(!poll.is_on(), "the first one is alone");
        poll.found(|| start + 3 * PATIENCE);
        assert!(!poll.is_on(), "the next one is late");
        poll.found(|| start + 4 * PATIENCE);
        assert!(poll.is_on());
        poll.expire(|| start + 4 * PATIENCE + PATIENCE / 2);
        assert!(poll.is_on());
        poll.expire(|| start + 5 * PATIENCE);
        assert!(!poll.is_on());
        poll.found(|| start + 5 * PATIENCE);
        assert!(poll.is_on());
    }

    #[test]
    fn does_not_even_ask_for_the_time_unless_told_to() {
        let mut poll = Poll::new(Duration::ZERO);
        for _ in 0..3 {
            poll.found(|| unreachable!());
            poll.expire(|| unreachable!());
            assert!(!poll.is_on());
        }
    }
}
