// SPDX-License-Identifier: GPL-2.0-only

//! What the board shows now, and the edges that led there.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result};
use rustix::event::{eventfd, EventfdFlags};

use super::panel::Panel;
use crate::control::{Device, Line};
use crate::model::{Change, Direction};
use crate::watch::Event;

/// Edges that are kept for browsers that read slowly.
const LOG: usize = 1 << 16;

/// The level of a line changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Monotonic clock, microseconds.
    pub time: u64,
    /// An index into the lines of the panel.
    pub line: usize,
    pub level: bool,
}

/// What one line does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    pub level: bool,
    /// The guest drives it.
    pub guest: bool,
}

/// What the board shows.
#[derive(Default)]
pub struct State {
    /// Why there is no daemon.
    pub trouble: Option<String>,
    /// Each device, and whether it has a guest.
    pub devices: Vec<(String, bool)>,
    pub panel: Panel,
    /// Counts panels.
    pub epoch: u64,
    pub wires: Vec<Wire>,
    /// Counts changes of anything.
    pub version: u64,
    indices: HashMap<String, HashMap<u16, usize>>,
    log: VecDeque<Edge>,
    /// Edges that are no longer in the log.
    dropped: u64,
}

impl State {
    /// The daemon is there, with these lines.
    pub fn connect(&mut self, panel: Panel, devices: &[Device], all: &[Line]) {
        self.trouble = None;
        self.devices(devices);
        if panel != self.panel || self.epoch == 0 {
            self.indices.clear();
            for (index, it) in panel.lines.iter().enumerate() {
                let lines = self.indices.entry(it.device.clone()).or_default();
                lines.insert(it.line, index);
            }
            self.panel = panel;
            self.epoch += 1;
            self.dropped += self.log.len() as u64;
            self.log.clear();
        }
        self.wires = vec![Wire::default(); self.panel.lines.len()];
        for line in all {
            if let Some(index) = self.index(&line.device, line.line) {
                self.wires[index] = Wire {
                    level: line.level,
                    guest: line.direction == Direction::Out,
                };
            }
        }
    }

    /// Notes which devices have a guest. Returns whether that is new.
    pub fn devices(&mut self, devices: &[Device]) -> bool {
        let devices = devices.iter().map(|it| (it.label.clone(), it.connected));
        let devices: Vec<_> = devices.collect();
        let new = devices != self.devices;
        self.devices = devices;
        new
    }

    /// Notes a change of a line. Returns whether the board shows that line.
    pub fn change(&mut self, event: &Event) -> bool {
        let Some(line) = self.index(&event.device, event.line) else {
            return false;
        };
        let wire = &mut self.wires[line];
        match event.change {
            Change::Level { level, .. } => {
                wire.level = level;
                if self.log.len() == LOG {
                    self.log.pop_front();
                    self.dropped += 1;
                }
                let time = event.time / 1000;
                self.log.push_back(Edge { time, line, level });
            }
            Change::Driven { level } => *wire = Wire { level, guest: true },
            Change::Direction { direction } => wire.guest = direction == Direction::Out,
            Change::Host { .. } | Change::Irq { .. } | Change::Armed { .. } => return false,
        }
        true
    }

    fn index(&self, device: &str, line: u16) -> Option<usize> {
        self.indices.get(device)?.get(&line).copied()
    }

    /// The number of edges so far.
    pub fn edges(&self) -> u64 {
        self.dropped + self.log.len() as u64
    }

    /// The edges after the first `seen`, as far as they are kept.
    pub fn edges_after(&self, seen: u64) -> impl Iterator<Item = &Edge> {
        let skip = seen.saturating_sub(self.dropped);
        self.log
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }
}

/// The state, between the threads that talk to the daemon and the one that talks to browsers.
pub struct Shared {
    state: Mutex<(State, bool)>,
    wake: OwnedFd,
}

impl Shared {
    pub fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let state = State {
            trouble: Some("connecting to vgpio".into()),
            ..State::default()
        };
        Ok(Self {
            state: Mutex::new((state, false)),
            wake: eventfd(0, flags).context("cannot make an eventfd")?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, (State, bool)> {
        self.state.lock().expect("a thread panicked")
    }

    /// Changes the state, and wakes the server if `f` says that it has.
    pub fn update(&self, f: impl FnOnce(&mut State) -> bool) {
        let (state, noticed) = &mut *self.lock();
        if !f(state) {
            return;
        }
        state.version += 1;
        // Once until the server looks, however many changes there are.
        if !std::mem::replace(noticed, true) {
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    pub fn read<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.lock().0)
    }

    pub fn version(&self) -> u64 {
        self.read(|state| state.version)
    }

    /// Reads the state; changes after this wake the server again.
    pub fn look<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        let (state, noticed) = &mut *self.lock();
        *noticed = false;
        f(state)
    }

    /// Readable when the state has changed.
    pub fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    pub fn clear_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::devices;
    use super::super::lines;
    use super::*;
    use crate::model::Cause;

    fn connect(state: &mut State, names: &[&str]) {
        let (all, devices) = (lines("d", names), devices(&["d"]));
        state.connect(Panel::new(None, &devices, &all), &devices, &all);
    }

    fn state() -> State {
        let mut state = State::default();
        connect(&mut state, &["a", "b"]);
        state
    }

    fn edge(time: u64, line: u16, level: bool) -> Event {
        Event {
            time: time * 1000,
            device: "d".into(),
            line,
            name: None,
            change: Change::Level {
                level,
                by: Cause::Host,
            },
        }
    }

    #[test]
    fn a_slow_reader_misses_old_edges() {
        let mut state = state();
        for time in 0..LOG as u64 + 10 {
            assert!(state.change(&edge(time, 1, time % 2 == 0)));
        }
        assert_eq!(state.edges(), LOG as u64 + 10);
        assert_eq!(state.edges_after(0).next().unwrap().time, 10);
        let late = state.edges_after(LOG as u64 + 9);
        assert_eq!(late.map(|it| it.time).collect::<Vec<_>>(), [LOG as u64 + 9]);
        assert_eq!(state.edges_after(u64::MAX).count(), 0);
    }

    #[test]
    fn lines_of_others_are_ignored() {
        let mut state = state();
        assert!(!state.change(&edge(1, 2, true)));
        assert_eq!(state.edges(), 0);
    }

    #[test]
    fn the_same_panel_again_is_no_news() {
        let mut state = state();
        state.change(&edge(1, 0, true));
        connect(&mut state, &["a", "b"]);
        assert_eq!((state.epoch, state.edges()), (1, 1));
        assert!(!state.wires[0].level, "as the daemon said last");
        connect(&mut state, &["a"]);
        assert_eq!((state.epoch, state.edges_after(0).count()), (2, 0));
    }
}
