// SPDX-License-Identifier: GPL-2.0-only

//! Requests that a thread of their own carries out, as they are about lines of the host.

use std::collections::BTreeSet;
use std::fmt::Arguments;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;

use rustix::event::{eventfd, EventfdFlags};

use super::{Description, Device, Locked};
use crate::fault::Verdict;
use crate::model::Usage;
use crate::outbox::Completion;
use crate::real::Edge;
use crate::wire::{Message, Request};

/// A request on its way.
pub struct Errand {
    /// That of the guest it is from.
    era: u64,
    message: Message,
    pub request: Request,
    completion: Completion,
    verdict: Verdict,
}

/// What the thread is to do.
pub enum Order {
    Carry(Box<Errand>),
    /// No line is used any more.
    Release,
}

/// What a request needs of the host before it is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// Its guest is gone.
    Forget,
    /// Its guest is paused.
    Wait,
    Answer,
    Use(Usage),
}

/// The level of an input of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub level: bool,
    /// Whether edges tell how it changes.
    pub told: bool,
}

/// Where a device leaves its errands.
pub struct Office {
    lines: BTreeSet<u16>,
    era: u64,
    orders: Sender<Order>,
    bell: Arc<OwnedFd>,
}

/// The two ends, and what wakes the one that takes the orders.
pub fn office(description: &Description) -> io::Result<(Office, Receiver<Order>, Arc<OwnedFd>)> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let bell = Arc::new(bell);
    let (orders, received) = mpsc::channel();
    let office = Office {
        lines: description.host_lines.iter().map(|it| it.line).collect(),
        era: 0,
        orders,
        bell: bell.clone(),
    };
    Ok((office, received, bell))
}

impl Office {
    /// Whether requests about this line are errands.
    pub fn has(&self, line: u16) -> bool {
        self.lines.contains(&line)
    }

    /// Has a request carried out, after all before it.
    pub fn carry(
        &self,
        message: Message,
        request: Request,
        completion: Completion,
        verdict: Verdict,
    ) {
        let era = self.era;
        self.order(Order::Carry(Box::new(Errand {
            era,
            message,
            request,
            completion,
            verdict,
        })));
    }

    /// Drops what is under way, and gives the lines back.
    pub fn release(&mut self) {
        self.era += 1;
        self.order(Order::Release);
    }

    /// Has the thread look whether what waits can be carried out now.
    pub fn ring(&self) {
        // There is no room for more where this fails, and the thread is woken anyway.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn order(&self, order: Order) {
        // The thread lives as long as the process.
        let _ = self.orders.send(order);
        self.ring();
    }
}

impl Device {
    /// Has requests about lines of the host carried out by those who take the orders.
    pub fn open_office(&self, office: Office) {
        self.lock().state.office = Some(office);
    }

    /// Says what an errand needs.
    pub fn plan(&self, errand: &Errand) -> Plan {
        let locked = self.lock();
        if let Some(hindrance) = locked.hindrance(errand) {
            return hindrance;
        }
        let state = &locked.state;
        let Request { line, value, .. } = errand.request;
        let usage = state
            .model
            .usage_after(errand.message, line, value, state.rules);
        match usage.filter(|_| errand.verdict.status.is_none()) {
            Some(usage) if errand.message != Message::GetDirection => Plan::Use(usage),
            // It is refused, or not about the line of the host.
            _ => Plan::Answer,
        }
    }

    /// Answers an errand. `done` has the level that an input has now, and is an error if the host
    /// has refused. Gives the errand back if it has to wait.
    pub fn conclude(&self, errand: Errand, done: Result<Option<Level>, ()>) -> Option<Errand> {
        let mut locked = self.lock();
        match locked.hindrance(&errand) {
            Some(Plan::Wait) => return Some(errand),
            Some(_) => return None,
            None => {}
        }
        let line = errand.request.line;
        let state = &mut *locked.state;
        if let Ok(Some(Level { level, told: false })) = done {
            state.model.set_host(line, level, &mut state.effects);
        }
        let value = match done {
            Ok(Some(Level { level, .. })) if errand.message == Message::GetValue => {
                Some(level.into())
            }
            Ok(_) if errand.verdict.status.is_none() => {
                locked.carry_out(errand.message, errand.request)
            }
            _ => None,
        };
        locked.answer(errand.completion, errand.verdict, value);
        locked.settle();
        None
    }

    /// Takes edges of lines of the host.
    pub fn take_edges(&self, edges: impl IntoIterator<Item = (u16, Edge)>) {
        let mut locked = self.lock();
        for (line, edge) in edges {
            let Edge { time, level } = edge;
            let state = &mut *locked.state;
            if state.model.view(line).is_some_and(|it| it.host == level) {
                // The first edge of a pulse of which the kernel has seen only the end.
                state.model.set_host(line, !level, &mut state.effects);
            }
            state.model.set_host(line, level, &mut state.effects);
            locked.dispatch_at(Some(time));
        }
        locked.settle();
    }

    /// Tells the host why something about a line of its own has failed.
    pub fn complain(&self, line: u16, why: Arguments<'_>) {
        let mut locked = self.lock();
        let label = &self.description.label;
        let name = self.description.names.get(line).unwrap_or_default();
        let limit = &mut locked.state.limit;
        limit.warn(label, format_args!("line {line} {name:?}: {why}"));
    }
}

impl Locked<'_> {
    /// What keeps an errand from being carried out.
    fn hindrance(&self, errand: &Errand) -> Option<Plan> {
        let era = self.state.office.as_ref().map(|it| it.era);
        if era != Some(errand.era) {
            return Some(Plan::Forget);
        }
        self.state.paused.is_some().then_some(Plan::Wait)
    }
}
