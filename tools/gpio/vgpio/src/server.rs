// SPDX-License-Identifier: GPL-2.0-only

//! The daemon's end of the control socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use log::{debug, Level};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::control::{self, Fault, Line, Reply, Request, Wire, LONGEST_REQUEST};
use crate::device::{Description, Device};
use crate::limit::Limit;
use crate::model::View;
use crate::real::config::HostLine;
use crate::watch::{self, Topic};

/// A device and the socket on which front ends find it.
pub struct Served {
    pub device: Arc<Device>,
    pub socket: String,
}

/// The most clients at a time. Each has a thread, and may have a long request.
const CLIENTS: usize = 64;

/// The most lines in a request.
const LINES: usize = 1 << 16;

/// All devices of a daemon.
pub struct Server {
    devices: Vec<Served>,
    clients: Mutex<Clients>,
}

/// The clients by the order in which they came.
#[derive(Default)]
struct Clients {
    streams: BTreeMap<u64, Arc<UnixStream>>,
    last: u64,
}

/// Lines of one device.
type Selection<'a> = (&'a Arc<Device>, Vec<u16>);

impl Server {
    pub fn new(devices: Vec<Served>) -> Arc<Self> {
        Arc::new(Self {
            devices,
            clients: Mutex::default(),
        })
    }

    /// Serves all clients. Does not return.
    pub fn run(self: &Arc<Self>, listener: &UnixListener) {
        let mut limit = Limit::default();
        loop {
            let served = listener
                .accept()
                .and_then(|(stream, _)| self.welcome(Arc::new(stream)));
            if let Err(e) = served {
                // Out of descriptors, most likely. Some may come back.
                limit.log(
                    Level::Warn,
                    "control",
                    format_args!("cannot serve a client: {e}"),
                );
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Starts to serve a client. If there are too many, the one that came first has to go: clients
    /// that do nothing must not keep others out.
    fn welcome(self: &Arc<Self>, client: Arc<UnixStream>) -> std::io::Result<()> {
        let id = {
            let mut clients = self.clients.lock().expect("a thread panicked");
            if clients.streams.len() >= CLIENTS {
                if let Some((_, first)) = clients.streams.pop_first() {
                    let _ = first.shutdown(std::net::Shutdown::Both);
                }
            }
            clients.last += 1;
            let id = clients.last;
            clients.streams.insert(id, client.clone());
            id
        };
        let server = self.clone();
        let serve = move || {
            if let Err(e) = server.converse(id, &client) {
                debug!("control client: {e:#}");
            }
            server.farewell(id);
        };
        let thread = std::thread::Builder::new().name("control".into());
        thread
            .spawn(serve)
            .map(drop)
            .inspect_err(|_| self.farewell(id))
    }

    fn farewell(&self, id: u64) {
        let mut clients = self.clients.lock().expect("a thread panicked");
        clients.streams.remove(&id);
    }

    /// Answers one client's requests until it hangs up.
    fn converse(&self, id: u64, client: &UnixStream) -> Result<()> {
        let mut requests = BufReader::new(client);
        loop {
            let request = match control::receive(&mut requests, LONGEST_REQUEST) {
                Ok(None) => return Ok(()),
                Ok(Some(request)) => request,
                Err(e) => {
                    control::send(client, &Reply::Error(format!("{e:#}")))?;
                    return Err(e);
                }
            };
            if let Request::Watch {
                device,
                lines,
                topic,
            } = &request
            {
                match self.select(device.as_deref(), lines) {
                    Ok(selected) => return self.watch(id, client, requests, selected, *topic),
                    Err(e) => control::send(client, &Reply::Error(format!("{e:#}")))?,
                }
                continue;
            }
            let reply = self.answer(&request, client);
            control::send(
                client,
                &reply.unwrap_or_else(|e| Reply::Error(format!("{e:#}"))),
            )?;
        }
    }

    /// Carries out a request that has one reply.
    pub fn answer(&self, request: &Request, client: &UnixStream) -> Result<Reply> {
        Ok(match request {
            Request::Detect => Reply::Devices(self.devices.iter().map(Served::detect).collect()),
            Request::Info { device, lines } => {
                let selected = self.select(device.as_deref(), lines)?;
                Reply::Lines(selected.iter().flat_map(describe).collect())
            }
            Request::Set { device, values } => {
                let names: Vec<_> = values.iter().map(|(line, _)| line.clone()).collect();
                let mut values = values.iter().map(|(_, value)| *value);
                for (device, lines) in self.select_ours(device.as_deref(), &names)? {
                    device.set(lines.into_iter().zip(values.by_ref()));
                }
                Reply::Done
            }
            Request::Toggle {
                device,
                lines,
                count,
                interval_us,
            } => {
                let selected = self.select_ours(device.as_deref(), lines)?;
                let interval = Duration::from_micros(*interval_us);
                let mut next = Instant::now();
                for turn in 0..*count {
                    if turn > 0 {
                        // From a fixed start, so that the rate does not drift.
                        next += interval;
                        let pause = next.saturating_duration_since(Instant::now());
                        ensure!(!hangs_up(client, pause)?, "the client hung up");
                    }
                    for (device, lines) in &selected {
                        device.toggle(lines);
                    }
                }
                Reply::Done
            }
            Request::Swing {
                device,
                lines,
                count,
            } => {
                for (device, lines) in &self.select_ours(device.as_deref(), lines)? {
                    device.swing(lines, *count);
                }
                Reply::Done
            }
            Request::Wire {
                device,
                from,
                to,
                to_device,
            } => {
                let picked: Vec<_> = self.pick(device.as_deref())?.map(|it| &it.device).collect();
                let (device, from) = find(&picked, from, "--device")?;
                let to = match to {
                    Some(to) => Some(self.find_end(device, to, to_device.as_deref())?),
                    None => None,
                };
                if let Some((device, line)) = to {
                    ensure_ours(device, line)?;
                }
                device.wire(from, to).context("cannot start a thread")?;
                Reply::Done
            }
            Request::Eeprom { device, program } => {
                let picked: Vec<_> = self.pick(device.as_deref())?.collect();
                let [it] = picked[..] else {
                    bail!("several devices: choose one with --device");
                };
                let done = it.device.eeprom(|eeprom| match program {
                    None => Ok(Reply::Eeprom(eeprom.memory().to_vec())),
                    Some((start, bytes)) => {
                        let fits = eeprom.program((*start).into(), bytes);
                        ensure!(
                            fits,
                            "too long: the EEPROM has {} bytes",
                            eeprom.memory().len()
                        );
                        Ok(Reply::Done)
                    }
                });
                done.with_context(|| format!("{} has no EEPROM", it.label()))??
            }
            Request::Watch { .. } => bail!("watch is not a request with one reply"),
            Request::Stats { device, reset } => Reply::Stats(
                self.pick(device.as_deref())?
                    .map(|it| (it.label().to_owned(), it.device.stats(*reset)))
                    .collect(),
            ),
            Request::FaultSet { device, faults } => {
                let picked: Vec<_> = self.pick(device.as_deref())?.collect();
                let [it] = picked[..] else {
                    bail!("several devices: choose one with --device");
                };
                let names = &it.device.description().names;
                let count = it.device.description().lines;
                it.device.faults(|all| {
                    all.add(faults, |text| {
                        let line = text.parse().ok().filter(|line| *line < count);
                        line.or_else(|| names.find(text))
                            .with_context(|| format!("no line {text:?}"))
                    })
                })?;
                Reply::Done
            }
            Request::FaultList { device } => {
                let mut list = Vec::new();
                for it in self.pick(device.as_deref())? {
                    it.device.faults(|faults| {
                        list.extend(faults.list().map(|(id, fault)| Fault {
                            device: it.label().to_owned(),
                            id,
                            fault,
                        }));
                    });
                }
                Reply::Faults(list)
            }
            Request::FaultClear { device, ids } => {
                for it in self.pick(device.as_deref())? {
                    it.device.faults(|faults| faults.clear(ids))?;
                }
                Reply::Done
            }
            Request::Disconnect { device } => {
                for it in self.pick(device.as_deref())? {
                    it.device.hang_up();
                }
                Reply::Done
            }
        })
    }

    /// Sends changes until the client hangs up.
    fn watch(
        &self,
        id: u64,
        client: &UnixStream,
        mut requests: BufReader<&UnixStream>,
        selected: Vec<Selection<'_>>,
        topic: Topic,
    ) -> Result<()> {
        let (watcher, observer) = watch::channel(topic);
        let mut per_device: BTreeMap<_, (_, BTreeSet<_>)> = BTreeMap::new();
        for (device, lines) in selected {
            let (_, all) = per_device
                .entry(Arc::as_ptr(device))
                .or_insert_with(|| (device, BTreeSet::new()));
            all.extend(lines);
        }
        for (device, lines) in per_device.values() {
            device.watchers(|all| all.add(id, watcher.on((*device).clone(), lines.clone())));
        }
        drop(watcher);
        control::send(client, &Reply::Done)?;

        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut out = BufWriter::new(client);
                while let Some(event) = observer.next() {
                    let sent = control::send(&mut out, &Reply::Change(event));
                    if sent.is_err() || (observer.is_idle() && out.flush().is_err()) {
                        break;
                    }
                }
                drop(out);
                // Wakes the reader if it is we who have to end this.
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
            // Nothing more is expected but the end.
            let end = control::receive::<serde_json::Value>(&mut requests, LONGEST_REQUEST);
            for (device, _) in per_device.values() {
                device.watchers(|all| all.remove(id));
            }
            // One who has nothing more to ask gets all changes until then.
            if !matches!(end, Ok(None)) {
                let _ = client.shutdown(std::net::Shutdown::Both);
            }
            end.map(drop)
        })
    }

    /// The devices that `device` stands for: one, or all.
    fn pick(&self, device: Option<&str>) -> Result<impl Iterator<Item = &Served> + '_> {
        let range = match device {
            None => 0..self.devices.len(),
            Some(text) => {
                let index = self.devices.iter().position(|it| it.label() == text);
                let index = index.or_else(|| text.parse().ok());
                let index = index
                    .filter(|index| *index < self.devices.len())
                    .with_context(|| format!("no device {text:?}: `vgpio detect` lists them"))?;
                index..index + 1
            }
        };
        Ok(self.devices[range].iter())
    }

    /// Finds lines by number or name, in the order given; neighbours on one device stay together.
    fn select(&self, device: Option<&str>, lines: &[String]) -> Result<Vec<Selection<'_>>> {
        let picked: Vec<_> = self.pick(device)?.map(|it| &it.device).collect();
        if lines.is_empty() {
            let all = |it: &Device| (0..it.description().lines).collect();
            return Ok(picked.into_iter().map(|it| (it, all(it))).collect());
        }
        ensure!(lines.len() <= LINES, "more than {LINES} lines");
        let mut selected: Vec<Selection<'_>> = Vec::new();
        for text in lines {
            let (device, line) = find(&picked, text, "--device")?;
            match selected.last_mut() {
                Some((last, lines)) if Arc::ptr_eq(last, device) => lines.push(line),
                _ => selected.push((device, vec![line])),
            }
        }
        Ok(selected)
    }

    /// Finds the line at which a wire ends that starts from a line of `near`.
    fn find_end<'a>(
        &'a self,
        near: &'a Arc<Device>,
        text: &str,
        device: Option<&str>,
    ) -> Result<(&'a Arc<Device>, u16)> {
        let option = "--to-device";
        let named = near.description().names.find(text).is_some();
        if device.is_none() && (named || text.parse::<u64>().is_ok()) {
            return find(&[near], text, option);
        }
        let picked: Vec<_> = self.pick(device)?.map(|it| &it.device).collect();
        find(&picked, text, option)
    }

    /// The same as `select`, of lines that we drive.
    fn select_ours(&self, device: Option<&str>, lines: &[String]) -> Result<Vec<Selection<'_>>> {
        let selected = self.select(device, lines)?;
        for (device, lines) in &selected {
            for &line in lines {
                ensure_ours(device, line)?;
            }
        }
        Ok(selected)
    }
}

/// The line of the host that a line is, if so.
fn host_line(description: &Description, line: u16) -> Option<&HostLine> {
    description.host_lines.iter().find(|it| it.line == line)
}

/// Makes sure that it is we who drive a line when the guest does not.
fn ensure_ours(device: &Device, line: u16) -> Result<()> {
    let description = device.description();
    if let Some(theirs) = host_line(description, line) {
        let (label, from) = (&description.label, &theirs.from);
        bail!("line {line} of {label} is {from:?} of the host, which only the guest drives");
    }
    Ok(())
}

/// Finds one line by number, if there is but one device, or by name. `option` chooses a device.
fn find<'a>(
    devices: &[&'a Arc<Device>],
    text: &str,
    option: &str,
) -> Result<(&'a Arc<Device>, u16)> {
    if let ([device], Ok(number)) = (devices, text.parse::<u64>()) {
        let count = device.description().lines;
        return u16::try_from(number)
            .ok()
            .filter(|line| *line < count)
            .map(|line| (*device, line))
            .with_context(|| {
                let label = &device.description().label;
                format!("no line {number}: {label} has lines 0 to {}", count - 1)
            });
    }
    let named = |it: &&'a Arc<Device>| Some((*it, it.description().names.find(text)?));
    let mut found = devices.iter().filter_map(named);
    match (found.next(), found.next()) {
        (Some(line), None) => Ok(line),
        (Some(_), Some(_)) => {
            bail!("several devices have a line {text:?}: choose one with {option}")
        }
        (None, _) if text.parse::<u64>().is_ok() => {
            bail!("several devices have a line {text}: choose one with {option}")
        }
        (None, _) => bail!("no line is called {text:?}: `vgpio info` lists them"),
    }
}

/// Waits; returns at once, and true, if the client hangs up.
fn hangs_up(client: &UnixStream, patience: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(client, PollFlags::RDHUP)];
    let patience = Timespec::try_from(patience).context("that is too long")?;
    Ok(poll(&mut fds, Some(&patience))? > 0)
}

fn describe((device, lines): &Selection<'_>) -> Vec<Line> {
    let description = device.description();
    let wires = device.wires(lines);
    let wire = |(device, line): &(Arc<Device>, u16)| Wire {
        device: device.description().label.clone(),
        line: *line,
    };
    let line = |(line, view): (u16, View)| Line {
        device: description.label.clone(),
        line,
        name: description.names.get(line).map(str::to_owned),
        level: view.level,
        host: view.host,
        direction: view.direction,
        irq: view.irq,
        armed: view.armed,
        latched: view.latched,
        from: host_line(description, line).map(|it| it.from.clone()),
        wire: wires.get(&line).map(wire),
    };
    device.views(lines).into_iter().map(line).collect()
}

impl Served {
    fn label(&self) -> &str {
        &self.device.description().label
    }

    fn detect(&self) -> control::Device {
        let description = self.device.description();
        control::Device {
            label: description.label.clone(),
            socket: self.socket.clone(),
            lines: description.lines,
            irq: description.irq,
            connected: self.device.is_connected(),
        }
    }
}
