// SPDX-License-Identifier: GPL-2.0-only

//! Serves browsers, all in one thread that waits for none of them.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::sync::mpsc::SyncSender;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::time::{clock_gettime, ClockId};
use tungstenite::Utf8Bytes;

use super::connection::{Connection, Line, Next, Page};
use super::http;
use super::link;
use super::message::{self, Order};
use super::state::Shared;

/// The most connections at a time.
const CONNECTIONS: usize = 64;
/// The most pages among them.
const PAGES: usize = 32;
/// Time between two messages to a page.
const FRAME: Duration = Duration::from_millis(16);

/// Serves browsers.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    orders: SyncSender<link::Order>,
    token: String,
    connections: Vec<Connection>,
    /// When the pages were told the news.
    told: Instant,
}

impl Server {
    pub fn new(
        listener: TcpListener,
        shared: Arc<Shared>,
        orders: SyncSender<link::Order>,
        token: String,
    ) -> Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            shared,
            orders,
            token,
            connections: Vec::new(),
            told: Instant::now(),
        })
    }

    /// Does not return without an error.
    pub fn run(&mut self) -> Result<()> {
        loop {
            let ready = self.wait()?;
            self.shared.clear_wake();
            self.advance(&ready);
            self.accept();
            self.tell();
        }
    }

    /// Waits for something to do. Returns which connections have something.
    fn wait(&self) -> Result<Vec<bool>> {
        let news = self.has_news().then(|| self.told + FRAME);
        let until = self.connections.iter().filter_map(Connection::until);
        let until = until.chain(news).min();
        let patience = until.map(|it| it.saturating_duration_since(Instant::now()));
        // Rounded up, so that it is not too early.
        let patience = patience.map(|it| Timespec::try_from(it + Duration::from_micros(1)));

        let mut fds = vec![
            PollFd::new(self.shared.wake(), PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        let polled = self.connections.iter();
        fds.extend(polled.map(|it| PollFd::new(it.stream(), it.interest())));
        match poll(&mut fds, patience.transpose()?.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let now = Instant::now();
        let due = self.connections.iter().map(|it| it.until());
        let due = due.map(|until| until.is_some_and(|it| it <= now));
        let ready = fds[2..].iter().map(|fd| !fd.revents().is_empty());
        Ok(ready.zip(due).map(|(ready, due)| ready || due).collect())
    }

    fn advance(&mut self, ready: &[bool]) {
        let mut buttons = Buttons {
            held: BTreeMap::new(),
            shared: &self.shared,
            orders: &self.orders,
        };
        let mut pages = 0;
        for page in pages_of(&self.connections) {
            pages += 1;
            for line in page.held.keys() {
                *buttons.held.entry(line.clone()).or_default() += 1;
            }
        }
        let mut open = Vec::with_capacity(self.connections.len());
        for (connection, ready) in self.connections.drain(..).zip(ready) {
            if !ready {
                open.push(connection);
                continue;
            }
            let was_page = matches!(connection, Connection::Page(_));
            let full = pages >= PAGES;
            let obey = &mut |page: &mut Page, order| buttons.obey(page, order);
            match connection.advance(&self.token, full, obey) {
                Next::Open(next) => {
                    pages += usize::from(!was_page && matches!(next, Connection::Page(_)));
                    open.push(next);
                }
                Next::Closed => {}
                Next::PageClosed(held) => {
                    for (line, level) in held {
                        buttons.release(line, level);
                    }
                }
            }
        }
        self.connections = open;
    }

    fn accept(&mut self) {
        for _ in 0..CONNECTIONS {
            match self.listener.accept() {
                Ok((mut stream, _)) if self.connections.len() >= CONNECTIONS => {
                    // It has room in its buffer, or it is no loss.
                    let _ = stream.set_nonblocking(true);
                    let _ = stream.write(&http::refusal("503 Service Unavailable"));
                }
                Ok((stream, _)) => self.connections.extend(Connection::new(stream)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) => {
                    // Out of descriptors, most likely. Some may come back.
                    log::warn!("cannot serve a browser: {e}");
                    thread::sleep(Duration::from_millis(100));
                    return;
                }
            }
        }
    }

    /// Whether a page could be told something.
    fn has_news(&self) -> bool {
        let version = self.shared.version();
        pages_of(&self.connections)
            .any(|it| it.is_ready() && it.seen.is_none_or(|seen| seen.version != version))
    }

    /// Tells all pages what is new for them, unless that was done a moment ago.
    fn tell(&mut self) {
        let now = Instant::now();
        if now < self.told + FRAME || !self.has_news() {
            return;
        }
        self.told = now;
        let connections = &mut self.connections;
        self.shared.look(|state| {
            // Most have seen the same.
            let mut texts: HashMap<_, (Utf8Bytes, _)> = HashMap::new();
            for connection in connections {
                let Connection::Page(page) = connection else {
                    continue;
                };
                if !page.is_ready() || page.seen.is_some_and(|it| it.version == state.version) {
                    continue;
                }
                let (text, seen) = texts.entry(page.seen).or_insert_with(|| {
                    let (text, seen) = message::news(state, page.seen, microseconds());
                    (text.into(), seen)
                });
                page.send(text.clone());
                page.seen = Some(*seen);
            }
        });
    }
}

fn pages_of(connections: &[Connection]) -> impl Iterator<Item = &Page> {
    connections.iter().filter_map(|it| match it {
        Connection::Page(page) => Some(&**page),
        _ => None,
    })
}

/// The time of the clock that the daemon's events have.
fn microseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// Buttons and switches on their way to the daemon.
struct Buttons<'a> {
    /// By how many pages a button is held.
    held: BTreeMap<Line, usize>,
    shared: &'a Shared,
    orders: &'a SyncSender<link::Order>,
}

impl Buttons<'_> {
    fn obey(&mut self, page: &mut Page, order: Order) {
        let seen = self.shared.read(|state| {
            let place = state.panel.lines.get(order.line)?;
            let line = (place.device.clone(), place.line);
            (state.epoch == order.epoch).then_some((line, state.trouble.is_none()))
        });
        let Some((line, connected)) = seen else {
            return;
        };
        if !order.held && page.held.remove(&line).is_some() {
            self.release(line, order.level);
        } else if connected {
            if order.held && page.held.insert(line.clone(), !order.level).is_none() {
                *self.held.entry(line.clone()).or_default() += 1;
            }
            self.send(line, order.level);
        }
    }

    /// A page lets a button go; others may hold it.
    fn release(&mut self, line: Line, level: bool) {
        let held = self.held.entry(line.clone()).or_default();
        *held = held.saturating_sub(1);
        if *held == 0 {
            self.send(line, level);
        }
    }

    fn send(&self, (device, line): Line, level: bool) {
        // The queue is only full if the daemon hangs, and the link gives up soon.
        let _ = self.orders.try_send(link::Order::Set(device, line, level));
    }
}
