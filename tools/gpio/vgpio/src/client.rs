// SPDX-License-Identifier: GPL-2.0-only

//! The commands that talk to a daemon, and what they print.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use serde::Serialize;

use crate::control::{self, Line, Reply, Request};
use crate::model::{Change, Direction, IrqType};
use crate::watch::Event;

/// A connection to a daemon.
pub struct Client {
    replies: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon behind `path`.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| {
            format!(
                "no vgpio daemon at {}: start one with `vgpio serve` or use --control",
                path.display()
            )
        })?;
        Ok(Self {
            replies: BufReader::new(stream),
        })
    }

    /// Asks, and returns the answer unless it is an error.
    pub fn ask(&mut self, request: &Request) -> Result<Reply> {
        self.send(request)?;
        self.answer()
    }

    /// Asks without waiting for the answer.
    pub fn send(&mut self, request: &Request) -> Result<()> {
        let sent = control::send(self.replies.get_ref(), request);
        sent.map_err(|e| anyhow::anyhow!("the daemon hung up: {e}"))
    }

    fn answer(&mut self) -> Result<Reply> {
        match self.next()? {
            Some(Reply::Error(e)) => bail!(e),
            Some(reply) => Ok(reply),
            None => bail!("the daemon hung up"),
        }
    }

    /// Asks for something that has no answer but success.
    pub fn order(&mut self, request: &Request) -> Result<()> {
        self.send(request)?;
        self.done()
    }

    /// Waits for the answer to such a request.
    pub fn done(&mut self) -> Result<()> {
        match self.answer()? {
            Reply::Done => Ok(()),
            other => unexpected(&other),
        }
    }

    /// The next change after a `watch` request. `None` if none came within `patience`.
    pub fn change(&mut self, patience: Option<Duration>) -> Result<Option<Event>> {
        self.replies.get_ref().set_read_timeout(patience)?;
        match self.next() {
            Ok(Some(Reply::Change(event))) => Ok(Some(event)),
            Ok(Some(other)) => unexpected(&other),
            Ok(None) => bail!("the daemon hung up"),
            Err(e) if timed_out(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Hands changes to `take` after a `watch` request, until `options` have it that it is enough.
    /// `take` hears whether it is the last change for now, and says whether it counts.
    pub fn follow(
        &mut self,
        options: Watching,
        mut take: impl FnMut(&Event, bool) -> Result<bool>,
    ) -> Result<()> {
        let end = options
            .duration
            .and_then(|it| Instant::now().checked_add(it));
        let mut left = options.events;
        while left != Some(0) {
            let rest = end.map(|end| end.saturating_duration_since(Instant::now()));
            if rest.is_some_and(|rest| rest.is_zero()) {
                break;
            }
            let patience = [options.idle, rest].into_iter().flatten().min();
            let Some(event) = self.change(patience)? else {
                break;
            };
            if take(&event, self.replies.buffer().is_empty())? {
                left = left.map(|left| left - 1);
            }
        }
        Ok(())
    }

    /// The connection, for the one who ends it while another waits for a change.
    pub fn stream(&self) -> std::io::Result<UnixStream> {
        self.replies.get_ref().try_clone()
    }

    fn next(&mut self) -> Result<Option<Reply>> {
        control::receive(&mut self.replies, control::LONGEST_REPLY)
    }
}

fn unexpected<T>(reply: &Reply) -> Result<T> {
    bail!("unexpected answer from the daemon (another version?): {reply:?}")
}

fn timed_out(error: &anyhow::Error) -> bool {
    let kind = error
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    matches!(
        kind,
        Some(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
    )
}

/// How `get` prints.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub numeric: bool,
    pub unquoted: bool,
}

/// Prints one JSON value in several lines.
fn print_json(value: &impl Serialize, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// The word that stands for `value` in JSON.
pub fn word(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

pub fn detect(client: &mut Client, json: bool, out: &mut impl Write) -> Result<()> {
    match client.ask(&Request::Detect)? {
        Reply::Devices(devices) if json => print_json(&devices, out),
        Reply::Devices(devices) => {
            for it in devices {
                let guest = if it.connected { "connected" } else { "waiting" };
                let irq = if it.irq { "" } else { ", no interrupts" };
                let (label, socket, lines) = (it.label, it.socket, it.lines);
                writeln!(out, "{label} [{socket}] ({lines} lines{irq}) {guest}")?;
            }
            Ok(())
        }
        other => unexpected(&other),
    }
}

/// The state of lines.
pub fn lines(client: &mut Client, device: Option<String>, lines: Vec<String>) -> Result<Vec<Line>> {
    match client.ask(&Request::Info { device, lines })? {
        Reply::Lines(lines) => Ok(lines),
        other => unexpected(&other),
    }
}

pub fn info(
    client: &mut Client,
    device: Option<String>,
    wanted: Vec<String>,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let all = wanted.is_empty();
    let lines = lines(client, device, wanted)?;
    if json {
        return print_json(&lines, out);
    }
    for (index, line) in lines.iter().enumerate() {
        let new = index == 0 || lines[index - 1].device != line.device;
        if all && new {
            let count = lines.iter().filter(|it| it.device == line.device).count();
            writeln!(out, "{} - {count} lines:", line.device)?;
        }
        let name = match &line.name {
            Some(name) => format!("{name:?}"),
            None => "unnamed".into(),
        };
        let place = if all {
            format!("\tline {:3}:\t", line.line)
        } else {
            format!("{} {}\t", line.device, line.line)
        };
        writeln!(out, "{place}{name:<16}\t{}", attributes(line))?;
    }
    Ok(())
}

fn attributes(line: &Line) -> String {
    let mut words = vec![word(line.direction), active(line.level).to_owned()];
    let driver = match line.direction {
        Direction::Out => "guest",
        Direction::None | Direction::In => "host",
    };
    words.push(format!("driven-by={driver}"));
    if line.direction == Direction::Out {
        words.push(format!("host={}", active(line.host)));
    }
    if line.irq != IrqType::None {
        words.push(format!("irq={}", word(line.irq)));
        words.push(if line.armed { "armed" } else { "masked" }.to_owned());
        if line.latched {
            words.push("latched".to_owned());
        }
    }
    if let Some(from) = &line.from {
        words.push(format!("from={from:?}"));
    }
    if let Some(wire) = &line.wire {
        words.push(format!("wire={}:{}", wire.device, wire.line));
    }
    words.join(" ")
}

fn active(level: bool) -> &'static str {
    if level {
        "active"
    } else {
        "inactive"
    }
}

pub fn get(
    client: &mut Client,
    device: Option<String>,
    wanted: Vec<String>,
    style: Style,
    out: &mut impl Write,
) -> Result<()> {
    let lines = lines(client, device, wanted.clone())?;
    let words = lines.iter().zip(&wanted).map(|(line, asked)| {
        if style.numeric {
            u8::from(line.level).to_string()
        } else if style.unquoted {
            format!("{asked}={}", active(line.level))
        } else {
            format!("\"{asked}\"={}", active(line.level))
        }
    });
    writeln!(out, "{}", words.collect::<Vec<_>>().join(" "))?;
    Ok(())
}

/// Prints the content of the EEPROM as i2cdump does.
pub fn eeprom(client: &mut Client, device: Option<String>, out: &mut impl Write) -> Result<()> {
    let program = None;
    match client.ask(&Request::Eeprom { device, program })? {
        Reply::Eeprom(bytes) => {
            for (index, row) in bytes.chunks(16).enumerate() {
                write!(out, "{:02x}:", 16 * index)?;
                for byte in row {
                    write!(out, " {byte:02x}")?;
                }
                writeln!(out)?;
            }
            Ok(())
        }
        other => unexpected(&other),
    }
}

/// What ends `mon`, `notify` and `record`, what they leave out, and how they print.
#[derive(Clone, Copy, Debug)]
pub struct Watching {
    pub events: Option<u64>,
    pub idle: Option<Duration>,
    pub duration: Option<Duration>,
    /// Only edges to this level.
    pub edges: Option<bool>,
    pub banner: bool,
    pub json: bool,
}

pub fn watch(
    client: &mut Client,
    request: &Request,
    options: Watching,
    out: &mut impl Write,
) -> Result<()> {
    client.order(request)?;
    if options.banner {
        writeln!(out, "Watching lines...")?;
        out.flush()?;
    }
    client.follow(options, |event, _| {
        if let Some(wanted) = options.edges {
            if !matches!(event.change, Change::Level { level, .. } if level == wanted) {
                return Ok(false);
            }
        }
        if options.json {
            writeln!(out, "{}", serde_json::to_string(event)?)?;
        } else {
            print_event(event, out)?;
        }
        // The output may be a pipe: flush each line.
        out.flush()?;
        Ok(true)
    })
}

fn print_event(event: &Event, out: &mut impl Write) -> Result<()> {
    let who = match &event.name {
        Some(name) => format!("{} {} {name:?}", event.device, event.line),
        None => format!("{} {}", event.device, event.line),
    };
    let what = match event.change {
        Change::Level { level, by } => {
            let edge = if level { "rising" } else { "falling" };
            format!("{edge}\t{who}={}\t{}", active(level), word(by))
        }
        Change::Driven { level } => format!("driven\t{who}={}\tguest", active(level)),
        Change::Host { level } => format!("host\t{who}={}\thost", active(level)),
        Change::Direction { direction } => format!("direction\t{who}\t{}", word(direction)),
        Change::Irq { irq } => format!("irq\t{who}\t{}", word(irq)),
        Change::Armed { armed } => {
            format!("mask\t{who}\t{}", if armed { "armed" } else { "masked" })
        }
    };
    let (seconds, nanos) = (event.time / 1_000_000_000, event.time % 1_000_000_000);
    writeln!(out, "{seconds}.{nanos:09}\t{what}")?;
    Ok(())
}

pub fn stats(
    client: &mut Client,
    device: Option<String>,
    reset: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let stats = match client.ask(&Request::Stats { device, reset })? {
        Reply::Stats(stats) => stats,
        other => return unexpected(&other),
    };
    if json {
        let map: serde_json::Map<_, _> = stats
            .into_iter()
            .map(|(label, stats)| Ok((label, serde_json::to_value(stats)?)))
            .collect::<Result<_>>()?;
        return print_json(&map, out);
    }
    for (label, stats) in stats {
        writeln!(out, "{label}:")?;
        let serde_json::Value::Object(fields) = serde_json::to_value(stats)? else {
            continue;
        };
        for (name, value) in fields {
            match value {
                serde_json::Value::Object(group) => {
                    for (part, value) in group {
                        writeln!(out, "\t{name}.{part}: {value}")?;
                    }
                }
                value => writeln!(out, "\t{name}: {value}")?,
            }
        }
    }
    Ok(())
}

pub fn fault_list(client: &mut Client, device: Option<String>, out: &mut impl Write) -> Result<()> {
    match client.ask(&Request::FaultList { device })? {
        Reply::Faults(faults) => {
            for it in faults {
                writeln!(out, "{} {}: {}", it.device, it.id, it.fault)?;
            }
            Ok(())
        }
        other => unexpected(&other),
    }
}
