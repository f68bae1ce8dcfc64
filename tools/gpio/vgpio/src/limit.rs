// SPDX-License-Identifier: GPL-2.0-only

//! What the guest and other strangers make us log, too little to fill a disk.

use std::time::{Duration, Instant};

use log::{log, Level};

const PERIOD: Duration = Duration::from_secs(5);
const PER_PERIOD: u32 = 5;

/// Lets a few messages per period through and counts the rest.
#[derive(Debug, Default)]
pub struct Limit {
    since: Option<Instant>,
    count: u32,
}

impl Limit {
    /// Logs a complaint about a device's guest, unless there was too much lately.
    pub fn warn(&mut self, device: &str, what: std::fmt::Arguments<'_>) {
        self.log(Level::Warn, device, what);
    }

    /// Logs `what`, unless there was too much lately.
    pub fn log(&mut self, level: Level, device: &str, what: std::fmt::Arguments<'_>) {
        if let Some(suppressed) = self.admit(Instant::now()) {
            if suppressed > 0 {
                log!(target: "vgpio", level, device; "{suppressed} similar messages left out");
            }
            log!(target: "vgpio", level, device; "{what}");
        }
    }

    /// Whether a message may pass, and how many before it did not.
    fn admit(&mut self, now: Instant) -> Option<u32> {
        let mut suppressed = 0;
        if self.since.is_none_or(|since| now - since >= PERIOD) {
            suppressed = self.count.saturating_sub(PER_PERIOD);
            self.since = Some(now);
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        (self.count <= PER_PERIOD).then_some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_per_period_and_the_rest_is_counted() {
        let mut limit = Limit::default();
        let start = Instant::now();
        for _ in 0..PER_PERIOD {
            assert_eq!(limit.admit(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limit.admit(start), None);
        }
        assert_eq!(limit.admit(start + PERIOD), Some(7));
        assert_eq!(limit.admit(start + PERIOD), Some(0));
    }
}
