// SPDX-License-Identifier: GPL-2.0-only

//! The connection to the daemon: three, as one that watches cannot ask.

use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use super::layout::Layout;
use super::panel::Panel;
use super::state::Shared;
use crate::client::Client;
use crate::control::{Device, Reply, Request};
use crate::watch::Topic;

/// After this time without an answer, the daemon is gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often to look whether devices have a guest.
const PERIOD: Duration = Duration::from_millis(250);
/// Orders that may wait for the daemon.
const ORDERS: usize = 1024;

/// Something for the daemon to do.
#[derive(Debug)]
pub enum Order {
    /// Set the host's level of a line.
    Set(String, u16, bool),
    /// A watcher of this session has ended.
    End(u64),
}

/// Starts to talk to the daemon behind `control`, again and again.
pub fn start(
    control: PathBuf,
    layout: Option<Layout>,
    shared: Arc<Shared>,
) -> Result<SyncSender<Order>> {
    let (sender, orders) = sync_channel(ORDERS);
    let link = Link {
        control,
        layout,
        shared,
        orders,
        sender: sender.clone(),
    };
    let thread = thread::Builder::new().name("link".into());
    thread
        .spawn(move || link.run())
        .context("cannot start a thread")?;
    Ok(sender)
}

struct Link {
    control: PathBuf,
    layout: Option<Layout>,
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    /// For watchers to say that they have ended.
    sender: SyncSender<Order>,
}

impl Link {
    fn run(&self) {
        for session in 0.. {
            if let Err(e) = self.session(session) {
                let slow = matches!(
                    e.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
                    Some(std::io::ErrorKind::WouldBlock)
                );
                let trouble = if slow {
                    "vgpio does not answer".into()
                } else {
                    format!("{e:#}")
                };
                self.shared.update(|state| {
                    let new = state.trouble.as_ref() != Some(&trouble);
                    state.trouble = Some(trouble);
                    new
                });
            }
            thread::sleep(PERIOD);
        }
    }

    /// Talks to the daemon until one of the connections ends.
    fn session(&self, number: u64) -> Result<()> {
        // The watches first: what happens while the lines are listed comes after the list.
        let mut watches = [
            watch(&self.control, Topic::Levels)?,
            watch(&self.control, Topic::Setup)?,
        ];
        let streams = watches.each_ref().map(Client::stream);
        let mut client = connect(&self.control)?;
        let devices = detect(&mut client)?;
        let lines = match client.ask(&Request::Info {
            device: None,
            lines: Vec::new(),
        })? {
            Reply::Lines(lines) => lines,
            other => bail!("unexpected answer from the daemon (another version?): {other:?}"),
        };
        let panel = Panel::new(self.layout.as_ref(), &devices, &lines);
        self.shared.update(|state| {
            state.connect(panel, &devices, &lines);
            true
        });

        thread::scope(|scope| {
            for watch in &mut watches {
                let (shared, sender) = (&self.shared, &self.sender);
                scope.spawn(move || {
                    while let Ok(Some(event)) = watch.change(None) {
                        shared.update(|state| state.change(&event));
                    }
                    // If there is no room, the next order notices by itself.
                    let _ = sender.try_send(Order::End(number));
                });
            }
            let end = self.obey(number, &mut client);
            for stream in streams.iter().flatten() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            end
        })
    }

    /// Carries out orders, and looks for guests in between.
    fn obey(&self, number: u64, client: &mut Client) -> Result<()> {
        loop {
            match self.orders.recv_timeout(PERIOD) {
                Ok(Order::Set(device, line, level)) => client.order(&Request::Set {
                    device: Some(device),
                    values: vec![(line.to_string(), level)],
                })?,
                Ok(Order::End(session)) if session == number => bail!("the daemon hung up"),
                Ok(Order::End(_)) => {}
                Err(_) => {
                    let devices = detect(client)?;
                    self.shared.update(|state| state.devices(&devices));
                }
            }
        }
    }
}

fn connect(control: &Path) -> Result<Client> {
    let client = Client::connect(control)?;
    let stream = client.stream()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(client)
}

fn watch(control: &Path, topic: Topic) -> Result<Client> {
    let mut client = connect(control)?;
    client.order(&Request::Watch {
        device: None,
        lines: Vec::new(),
        topic,
    })?;
    Ok(client)
}

fn detect(client: &mut Client) -> Result<Vec<Device>> {
    match client.ask(&Request::Detect)? {
        Reply::Devices(devices) => Ok(devices),
        other => bail!("unexpected answer from the daemon (another version?): {other:?}"),
    }
}
