// SPDX-License-Identifier: GPL-2.0-only

//! Chains on their way back to the guest that must wait: because a fault says so, or because the
//! ring is disabled for the moment.
//!
//! Whatever waits, answers for one line leave in the order in which they were made.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::chain::Pieces;

/// How long answers that are to be reordered wait for more of them.
const REORDER_PATIENCE: Duration = Duration::from_millis(50);

/// A chain that is done with.
#[derive(Debug)]
pub struct Completion {
    pub queue: usize,
    pub line: u16,
    pub head: u16,
    pub pieces: Pieces,
    /// Bytes of device-writable memory in all.
    pub capacity: u32,
    pub bytes: SmallVec<[u8; 8]>,
    /// The length to claim; `None` for what is written.
    pub used: Option<u32>,
}

impl Completion {
    fn stream(&self) -> (usize, u16) {
        (self.queue, self.line)
    }
}

/// Completions that wait.
#[derive(Debug, Default)]
pub struct Outbox {
    later: BTreeMap<(Instant, u64), Completion>,
    serial: u64,
    /// Answers to be reversed, with the delay that comes on top.
    reversing: Vec<(Completion, Duration)>,
    /// Reverse when there are so many, or at this time.
    reverse_at: Option<(usize, Instant)>,
    /// Completions whose ring does not run.
    stalled: VecDeque<Completion>,
}

impl Outbox {
    /// Takes a completion. Gives it back if it need not wait.
    pub fn submit(
        &mut self,
        completion: Completion,
        delay: Duration,
        reorder: Option<Option<usize>>,
        now: impl FnOnce() -> Instant,
    ) -> Option<Completion> {
        if reorder.is_none() && delay.is_zero() && self.is_idle() {
            return Some(completion);
        }
        let now = now();
        let behind = |(it, _): &(Completion, _)| it.stream() == completion.stream();
        if reorder.is_some() || self.reversing.iter().any(behind) {
            self.reversing.push((completion, delay));
            if let Some(Some(count)) = reorder {
                self.reverse_at
                    .get_or_insert((count, now + REORDER_PATIENCE));
            }
            if matches!(self.reverse_at, Some((count, _)) if self.reversing.len() >= count) {
                self.reverse(now);
            }
            return None;
        }
        self.schedule(completion, delay, now)
    }

    fn is_idle(&self) -> bool {
        self.later.is_empty() && self.reversing.is_empty()
    }

    fn schedule(
        &mut self,
        completion: Completion,
        delay: Duration,
        now: Instant,
    ) -> Option<Completion> {
        let behind = self
            .later
            .iter()
            .rev()
            .find(|(_, it)| it.stream() == completion.stream())
            .map(|((due, _), _)| *due);
        if delay.is_zero() && behind.is_none() {
            return Some(completion);
        }
        let due = behind.map_or(now + delay, |due| due.max(now + delay));
        self.serial += 1;
        self.later.insert((due, self.serial), completion);
        None
    }

    /// Lets the collected answers go, last come first, except that each line keeps its order.
    fn reverse(&mut self, now: Instant) {
        self.reverse_at = None;
        let collected = std::mem::take(&mut self.reversing);
        let order: Vec<_> = collected.iter().rev().map(|(it, _)| it.stream()).collect();
        let mut streams: HashMap<_, VecDeque<_>> = HashMap::new();
        for entry in collected {
            streams
                .entry(entry.0.stream())
                .or_default()
                .push_back(entry);
        }
        for stream in order {
            let entry = streams.get_mut(&stream).and_then(VecDeque::pop_front);
            if let Some((completion, delay)) = entry {
                if let Some(ready) = self.schedule(completion, delay, now) {
                    self.serial += 1;
                    self.later.insert((now, self.serial), ready);
                }
            }
        }
    }

    /// The guest has no more messages for now: answers that were to be reversed within the batch
    /// go.
    pub fn end_of_batch(&mut self) {
        if !self.reversing.is_empty() && self.reverse_at.is_none() {
            self.reverse(Instant::now());
        }
    }

    /// The next completion that has waited long enough.
    pub fn due(&mut self) -> Option<Completion> {
        if self.is_idle() {
            return None;
        }
        let now = Instant::now();
        if matches!(self.reverse_at, Some((_, at)) if at <= now) {
            self.reverse(now);
        }
        let entry = self.later.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// When [`Outbox::due`] will have something.
    pub fn next_due(&self) -> Option<Instant> {
        let later = self.later.first_key_value().map(|((due, _), _)| *due);
        let reverse = self.reverse_at.map(|(_, at)| at);
        match (later, reverse) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Keeps a completion until its ring runs.
    pub fn stall(&mut self, completion: Completion) {
        self.stalled.push_back(completion);
    }

    /// The completions whose ring did not run, oldest first.
    pub fn take_stalled(&mut self) -> VecDeque<Completion> {
        std::mem::take(&mut self.stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(line: u16, head: u16) -> Completion {
        Completion {
            queue: 0,
            line,
            head,
            pieces: Pieces::new(),
            capacity: 0,
            bytes: SmallVec::new(),
            used: None,
        }
    }

    fn submit(
        outbox: &mut Outbox,
        (line, head): (u16, u16),
        delay: Duration,
        reorder: Option<Option<usize>>,
    ) -> Option<u16> {
        outbox
            .submit(completion(line, head), delay, reorder, Instant::now)
            .map(|it| it.head)
    }

    fn drain(outbox: &mut Outbox) -> Vec<u16> {
        let mut heads = Vec::new();
        while let Some(due) = outbox.next_due() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            heads.extend(outbox.due().map(|it| it.head));
        }
        heads
    }

    const NOW: Duration = Duration::ZERO;
    const SOON: Duration = Duration::from_millis(10);

    #[test]
    fn nothing_waits_without_reason() {
        let mut outbox = Outbox::default();
        assert_eq!(submit(&mut outbox, (1, 7), NOW, None), Some(7));
        assert_eq!(outbox.next_due(), None);
    }

    #[test]
    fn v2_delay_keeps_the_order_within_a_line() {
        let mut outbox = Outbox::default();
        assert_eq!(submit(&mut outbox, (1, 1), SOON, None), None);
        assert_eq!(submit(&mut outbox, (1, 2), NOW, None), None, "same line");
        assert_eq!(submit(&mut outbox, (2, 3), NOW, None), Some(3), "another");
        assert_eq!(drain(&mut outbox), [1, 2]);
    }

    #[test]
    fn v2_reversal_keeps_the_order_within_a_line() {
        let mut outbox = Outbox::default();
        for chain in [(1, 1), (2, 2), (1, 3), (3, 4)] {
            assert_eq!(submit(&mut outbox, chain, NOW, Some(None)), None);
        }
        outbox.end_of_batch();
        assert_eq!(drain(&mut outbox), [4, 1, 2, 3]);
    }

    #[test]
    fn reversal_waits_for_answers_until_a_timeout() {
        let mut outbox = Outbox::default();
        for chain in [(1, 1), (2, 2), (3, 3)] {
            assert_eq!(submit(&mut outbox, chain, NOW, Some(Some(2))), None);
            outbox.end_of_batch();
        }
        assert_eq!(drain(&mut outbox), [2, 1, 3]);
    }
}
