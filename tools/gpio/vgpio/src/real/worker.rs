// SPDX-License-Identifier: GPL-2.0-only

//! The thread that uses the lines of the host for a device.

use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::{Edge, Host, Line};
use crate::device::errand::{self, Errand, Level, Order, Plan};
use crate::device::Device;
use crate::model::Usage;

/// Edges of a line that are taken before its device has others processed.
const EDGES: usize = 64;

/// A line that is requested, and what for.
struct Held {
    line: Box<dyn Line>,
    usage: Usage,
}

struct Worker {
    device: Arc<Device>,
    host: Box<dyn Host>,
    orders: Receiver<Order>,
    bell: Arc<OwnedFd>,
    held: BTreeMap<u16, Held>,
    /// What waits until its guest is no longer paused.
    waiting: Option<Errand>,
}

/// Starts the thread for a device. It ends with the daemon.
pub fn start(device: &Arc<Device>, host: Box<dyn Host>) -> io::Result<()> {
    let (office, orders, bell) = errand::office(device.description())?;
    let worker = Worker {
        device: device.clone(),
        host,
        orders,
        bell,
        held: BTreeMap::new(),
        waiting: None,
    };
    thread::Builder::new()
        .name("lines".into())
        .spawn(move || worker.run())?;
    device.open_office(office);
    Ok(())
}

impl Worker {
    fn run(mut self) {
        loop {
            let busy = self.work();
            self.listen(busy);
        }
    }

    /// Carries out one order. Returns whether there may be more.
    fn work(&mut self) -> bool {
        let order = self.waiting.take().map(|it| Order::Carry(Box::new(it)));
        match order.or_else(|| self.orders.try_recv().ok()) {
            None => return false,
            Some(Order::Release) => self.held.clear(),
            Some(Order::Carry(errand)) => {
                self.waiting = self.carry_out(*errand);
                return self.waiting.is_none();
            }
        }
        true
    }

    /// Carries out a request. Gives it back if that has to wait.
    fn carry_out(&mut self, errand: Errand) -> Option<Errand> {
        let line = errand.request.line;
        let done = match self.device.plan(&errand) {
            Plan::Forget => return None,
            Plan::Wait => return Some(errand),
            Plan::Answer => Ok(None),
            Plan::Use(usage) => self.prepare(line, usage),
        };
        if let Err(e) = &done {
            self.device.complain(line, format_args!("{e:#}"));
        }
        self.device.conclude(errand, done.map_err(drop))
    }

    /// Has a line be used for this. Returns its level if that is the host's.
    fn prepare(&mut self, line: u16, usage: Usage) -> Result<Option<Level>> {
        if usage == Usage::None {
            self.held.remove(&line);
            return Ok(None);
        }
        let mut changed = false;
        let held = match self.held.entry(line) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(place) => {
                changed = true;
                let line = self.host.request(line, usage)?;
                place.insert(Held { line, usage })
            }
        };
        if held.usage != usage {
            changed = true;
            held.line.change(usage)?;
            held.usage = usage;
        }
        let Usage::Input { edges } = usage else {
            return Ok(None);
        };
        let mut level = held.line.level()?;
        if edges && changed {
            // Those from before the level was read.
            while let Some(edge) = held.line.edge()? {
                level = edge.level;
            }
        }
        let told = edges && !changed;
        Ok(Some(Level { level, told }))
    }

    /// Hears of orders and edges. Waits for them unless `busy`.
    fn listen(&mut self, busy: bool) {
        let mut fds = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        let events = |it| PollFd::from_borrowed_fd(it, PollFlags::IN);
        fds.extend(self.held.values().map(|it| events(it.line.events())));
        let patience = busy.then(Timespec::default);
        if rustix::io::retry_on_intr(|| poll(&mut fds, patience.as_ref())).is_err() {
            // There is not enough memory.
            thread::sleep(Duration::from_millis(10));
            return;
        }
        if !fds[0].revents().is_empty() {
            let _ = rustix::io::read(&*self.bell, &mut [0_u8; 8]);
        }
        let heard = fds[1..].iter().map(PollFd::revents);
        let heard: Vec<_> = self.held.keys().copied().zip(heard).collect();
        let mut edges = Vec::new();
        for (line, flags) in heard.into_iter().filter(|(_, flags)| !flags.is_empty()) {
            if let Err(e) = self.hear(line, flags, &mut edges) {
                self.device.complain(line, format_args!("{e:#}"));
                self.held.remove(&line);
            }
        }
        if !edges.is_empty() {
            self.device.take_edges(edges);
        }
    }

    /// Takes edges of a line. An error means that there will be no more.
    fn hear(&self, line: u16, flags: PollFlags, edges: &mut Vec<(u16, Edge)>) -> Result<()> {
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        ensure!(!flags.intersects(gone), "the chip of the host is gone");
        let held = &self.held[&line];
        for _ in 0..EDGES {
            let Some(edge) = held.line.edge()? else {
                break;
            };
            // It may be from before the line was used for something else.
            if held.usage == (Usage::Input { edges: true }) {
                edges.push((line, edge));
            }
        }
        Ok(())
    }
}
