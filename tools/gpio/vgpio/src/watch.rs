// SPDX-License-Identifier: GPL-2.0-only

//! Who wants to hear of changes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::Change;

/// Changes that may wait for one observer. One who does not read loses the connection, not us the
/// memory.
const LIMIT: usize = 1 << 20;

/// A change with its circumstances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Monotonic clock, nanoseconds.
    pub time: u64,
    pub device: String,
    pub line: u16,
    pub name: Option<String>,
    #[serde(flatten)]
    pub change: Change,
}

/// What an observer is interested in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Levels: edges, and a guest that begins to drive.
    Levels,
    /// Configuration: direction and interrupt.
    Setup,
}

impl Topic {
    fn covers(self, change: &Change) -> bool {
        match change {
            Change::Level { .. } | Change::Driven { .. } => self == Self::Levels,
            Change::Direction { .. } | Change::Irq { .. } | Change::Armed { .. } => {
                self == Self::Setup
            }
        }
    }
}

/// The sending end of an observer.
#[derive(Clone)]
pub struct Watcher {
    topic: Topic,
    lines: BTreeSet<u16>,
    sender: Sender<Event>,
    waiting: Arc<AtomicUsize>,
}

/// The receiving end of an observer.
pub struct Observer {
    receiver: Receiver<Event>,
    waiting: Arc<AtomicUsize>,
}

/// Creates the two ends; a watcher is cloned for each device and told its lines.
pub fn channel(topic: Topic) -> (Watcher, Observer) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let watcher = Watcher {
        topic,
        lines: BTreeSet::new(),
        sender,
        waiting: waiting.clone(),
    };
    (watcher, Observer { receiver, waiting })
}

impl Watcher {
    /// The same observer, for these lines.
    pub fn on(&self, lines: BTreeSet<u16>) -> Self {
        Self {
            lines,
            ..self.clone()
        }
    }

    /// Passes a change on if it is of interest. Returns whether the observer still listens.
    fn tell(&self, line: u16, change: &Change, event: impl FnOnce() -> Event) -> bool {
        if !self.topic.covers(change) || !self.lines.contains(&line) {
            return true;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed) < LIMIT && self.sender.send(event()).is_ok()
    }
}

impl Observer {
    /// Waits for the next change; `None` when no device tells us any more.
    pub fn next(&self) -> Option<Event> {
        let event = self.receiver.recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(event)
    }
}

/// The observers of a device.
#[derive(Default)]
pub struct Watchers {
    watchers: Vec<(u64, Watcher)>,
}

impl Watchers {
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Adds an observer under a number that is its own.
    pub fn add(&mut self, id: u64, watcher: Watcher) {
        self.watchers.push((id, watcher));
    }

    pub fn remove(&mut self, id: u64) {
        self.watchers.retain(|(it, _)| *it != id);
    }

    /// Tells everybody who is interested.
    pub fn tell(&mut self, line: u16, change: &Change, event: impl Fn() -> Event) {
        self.watchers
            .retain(|(_, watcher)| watcher.tell(line, change, &event));
    }
}
