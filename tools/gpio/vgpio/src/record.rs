// SPDX-License-Identifier: GPL-2.0-only

//! `record`: writes what happens on lines into a VCD file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{clock_gettime, ClockId};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use vcd::{IdCode, SimulationCommand, TimescaleUnit, VarType, Writer};

use crate::client::{self, word, Client, Watching};
use crate::control::{Line, Request};
use crate::model::{Cause, Change, Direction};
use crate::watch::{Event, Topic};
use crate::wave::LineId;

/// How long the daemon may take to send the last changes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Records all that happens on lines into `path`, until `options` or a signal ends it.
pub fn record(
    control: &Path,
    device: Option<String>,
    lines: Vec<String>,
    options: Watching,
    path: &Path,
    out: &mut impl Write,
) -> Result<()> {
    let mut client = Client::connect(control)?;
    let stopped = stop_on_signals(&client)?;
    let start = now();
    client.order(&Request::Watch {
        device: device.clone(),
        lines: lines.clone(),
        topic: Topic::All,
    })?;
    // Later than the watch, so that nothing is missed in between: what is told twice does no harm.
    let lines = client::lines(&mut Client::connect(control)?, device, lines)?;

    let shown = path.display();
    let file = File::create(path).with_context(|| format!("cannot create {shown}"))?;
    let mut recorder = Recorder::new(BufWriter::new(file), start, &lines)?;
    recorder.vcd.flush()?;
    if options.banner {
        writeln!(out, "Recording lines...")?;
        out.flush()?;
    }
    let result = client.follow(options, |event, is_last| {
        recorder.write(event)?;
        if is_last {
            recorder.vcd.flush()?;
        }
        Ok(true)
    });
    recorder
        .finish(now())
        .with_context(|| format!("cannot write {shown}"))?;
    if stopped.load(Ordering::SeqCst) {
        return Ok(());
    }
    result
}

/// Nanoseconds of the clock that events have.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Has SIGINT and SIGTERM end the watch, and with it the recording.
fn stop_on_signals(client: &Client) -> Result<Arc<AtomicBool>> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot catch signals")?;
    let stopped = Arc::new(AtomicBool::new(false));
    let stream = client.stream()?;
    let set = stopped.clone();
    std::thread::Builder::new().spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            set.store(true, Ordering::SeqCst);
            // The daemon sends what has happened until now, or is stuck.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            std::thread::sleep(PATIENCE);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if let Some(signal) = signals.next() {
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(stopped)
}

/// The signals of a line. Their codes begin with a letter: readers that do not know strings could
/// take others for a time or for a level.
struct Codes {
    level: IdCode,
    host: IdCode,
    guest: IdCode,
    direction: IdCode,
    irq: IdCode,
    armed: IdCode,
}

impl Codes {
    fn new(index: usize) -> Result<Self> {
        let code = |kind| -> Result<IdCode> { Ok(format!("{kind}{index}").parse()?) };
        Ok(Self {
            level: code('l')?,
            host: code('h')?,
            guest: code('g')?,
            direction: code('d')?,
            irq: code('i')?,
            armed: code('a')?,
        })
    }
}

struct Recorder<W: Write> {
    vcd: Writer<W>,
    codes: HashMap<String, HashMap<u16, Codes>>,
    /// Where time begins, and how far it has come.
    start: u64,
    now: u64,
}

impl<W: Write> Recorder<W> {
    /// Writes the header and the state of `lines`.
    fn new(out: W, start: u64, lines: &[Line]) -> Result<Self> {
        let mut vcd = Writer::new(out);
        vcd.version(concat!("vgpio ", env!("CARGO_PKG_VERSION")))?;
        let (seconds, nanos) = (start / 1_000_000_000, start % 1_000_000_000);
        vcd.comment(&format!(
            "Time 0 is {seconds}.{nanos:09} of the monotonic clock"
        ))?;
        vcd.timescale(1, TimescaleUnit::NS)?;
        let mut recorder = Self {
            vcd,
            codes: HashMap::new(),
            start,
            now: 0,
        };
        let mut devices: Vec<&str> = Vec::new();
        for line in lines {
            if !devices.contains(&&line.device[..]) {
                devices.push(&line.device);
            }
        }
        let mut scopes = HashSet::new();
        for device in devices {
            recorder.vcd.add_module(&unique(device, "", &mut scopes))?;
            let mut names = HashSet::new();
            for line in lines.iter().filter(|it| it.device == device) {
                recorder.define(line, &mut names)?;
            }
            recorder.vcd.upscope()?;
        }
        recorder.vcd.enddefinitions()?;

        recorder.vcd.timestamp(0)?;
        recorder.vcd.begin(SimulationCommand::Dumpvars)?;
        let mut dumped = HashSet::new();
        for line in lines {
            if dumped.insert((&line.device, line.line)) {
                recorder.dump(line)?;
            }
        }
        recorder.vcd.end()?;
        Ok(recorder)
    }

    /// Writes the definitions of a line, unless it has them already.
    fn define(&mut self, line: &Line, names: &mut HashSet<String>) -> Result<()> {
        let count: usize = self.codes.values().map(HashMap::len).sum();
        let of_device = self.codes.entry(line.device.clone()).or_default();
        if of_device.contains_key(&line.line) {
            return Ok(());
        }
        let codes = Codes::new(count)?;
        let id = LineId {
            device: line.device.clone(),
            line: line.line,
            name: line.name.clone(),
        };
        self.vcd.comment(&id.comment()?)?;
        let offset = line.line.to_string();
        let name = line.name.clone().unwrap_or_else(|| format!("line{offset}"));
        let name = unique(&name, &offset, names);
        for (kind, code, part) in [
            (VarType::Wire, codes.level, ""),
            (VarType::Wire, codes.host, ".host"),
            (VarType::Wire, codes.guest, ".guest"),
            (VarType::String, codes.direction, ".direction"),
            (VarType::String, codes.irq, ".irq"),
            (VarType::Wire, codes.armed, ".armed"),
        ] {
            let name = format!("{name}{part}");
            self.vcd.var_def(kind, 1, code, &name, None)?;
        }
        of_device.insert(line.line, codes);
        Ok(())
    }

    fn dump(&mut self, line: &Line) -> Result<()> {
        let of_device = self.codes.get(&line.device);
        let Some(codes) = of_device.and_then(|it| it.get(&line.line)) else {
            return Ok(());
        };
        let vcd = &mut self.vcd;
        vcd.change_scalar(codes.level, line.level)?;
        vcd.change_scalar(codes.host, line.host)?;
        vcd.change_scalar(codes.guest, line.direction == Direction::Out)?;
        vcd.change_string(codes.direction, &word(line.direction))?;
        vcd.change_string(codes.irq, &word(line.irq))?;
        vcd.change_scalar(codes.armed, line.armed)?;
        Ok(())
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        self.advance(event.time)?;
        let of_device = self.codes.get(&event.device);
        let Some(codes) = of_device.and_then(|it| it.get(&event.line)) else {
            return Ok(());
        };
        let vcd = &mut self.vcd;
        match event.change {
            Change::Level { level, by } => {
                vcd.change_scalar(codes.level, level)?;
                if by == Cause::Host {
                    vcd.change_scalar(codes.host, level)?;
                }
            }
            // The level is the same, and the direction was told.
            Change::Driven { .. } => {}
            Change::Host { level } => vcd.change_scalar(codes.host, level)?,
            Change::Direction { direction } => {
                vcd.change_scalar(codes.guest, direction == Direction::Out)?;
                vcd.change_string(codes.direction, &word(direction))?;
            }
            Change::Irq { irq } => vcd.change_string(codes.irq, &word(irq))?,
            Change::Armed { armed } => vcd.change_scalar(codes.armed, armed)?,
        }
        Ok(())
    }

    /// Writes the time unless it is the same. Devices tell their events independently of each
    /// other: one may come a moment late.
    fn advance(&mut self, time: u64) -> Result<()> {
        let now = time.saturating_sub(self.start);
        if now > self.now {
            self.now = now;
            self.vcd.timestamp(now)?;
        }
        Ok(())
    }

    fn finish(&mut self, time: u64) -> Result<()> {
        self.advance(time)?;
        self.vcd.flush()?;
        Ok(())
    }
}

/// Makes an identifier of letters, digits and underscores, unlike all that are `taken`.
fn unique(name: &str, offset: &str, taken: &mut HashSet<String>) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut name: String = name.chars().map(legal).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    while !taken.insert(name.clone()) {
        name.push('_');
        name.push_str(offset);
    }
    name
}
