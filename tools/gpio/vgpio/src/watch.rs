// SPDX-License-Identifier: GPL-2.0-only

//! Who wants to hear of changes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::model::Change;

/// Changes that may wait for one observer. One who does not read loses the connection, not us the
/// memory.
const LIMIT: usize = 1 << 18;

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
    /// All changes, with those of the host's levels that are not on the wire.
    All,
}

impl Topic {
    fn covers(self, change: &Change) -> bool {
        let topic = match change {
            Change::Level { .. } | Change::Driven { .. } => Self::Levels,
            Change::Direction { .. } | Change::Irq { .. } | Change::Armed { .. } => Self::Setup,
            Change::Host { .. } => Self::All,
        };
        self == topic || self == Self::All
    }
}

/// A change as short as can be: many may wait.
struct Note {
    device: Arc<Device>,
    time: u64,
    line: u16,
    change: Change,
}

/// The origin of the sending ends of an observer.
pub struct Channel {
    topic: Topic,
    sender: Sender<Note>,
    waiting: Arc<AtomicUsize>,
}

/// The sending end of an observer, for one device.
pub struct Watcher {
    channel: Channel,
    device: Arc<Device>,
    lines: BTreeSet<u16>,
}

/// The receiving end of an observer.
pub struct Observer {
    receiver: Receiver<Note>,
    waiting: Arc<AtomicUsize>,
}

/// Creates the two ends.
pub fn channel(topic: Topic) -> (Channel, Observer) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let channel = Channel {
        topic,
        sender,
        waiting: waiting.clone(),
    };
    (channel, Observer { receiver, waiting })
}

impl Channel {
    /// The sending end for these lines of `device`.
    pub fn on(&self, device: Arc<Device>, lines: BTreeSet<u16>) -> Watcher {
        let channel = Self {
            topic: self.topic,
            sender: self.sender.clone(),
            waiting: self.waiting.clone(),
        };
        Watcher {
            channel,
            device,
            lines,
        }
    }
}

impl Watcher {
    /// Passes a change on if it is of interest. Returns whether the observer still listens.
    fn tell(&self, time: u64, line: u16, change: Change) -> bool {
        let Channel {
            topic,
            sender,
            waiting,
        } = &self.channel;
        if !topic.covers(&change) || !self.lines.contains(&line) {
            return true;
        }
        let note = Note {
            device: self.device.clone(),
            time,
            line,
            change,
        };
        waiting.fetch_add(1, Ordering::Relaxed) < LIMIT && sender.send(note).is_ok()
    }
}

impl Observer {
    /// Whether no change waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Waits for the next change; `None` when no device tells us any more.
    pub fn next(&self) -> Option<Event> {
        let Note {
            device,
            time,
            line,
            change,
        } = self.receiver.recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let description = device.description();
        Some(Event {
            time,
            device: description.label.clone(),
            line,
            name: description.names.get(line).map(str::to_owned),
            change,
        })
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
    pub fn tell(&mut self, time: u64, line: u16, change: Change) {
        self.watchers
            .retain(|(_, watcher)| watcher.tell(time, line, change));
    }
}
