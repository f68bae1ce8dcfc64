// SPDX-License-Identifier: GPL-2.0-only

//! What goes over the control socket: one JSON object per line, a request and its reply in turn.
//! After the reply to `watch` the daemon sends changes until the client hangs up.

use std::io::{BufRead, Write};

use anyhow::{ensure, Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{Direction, IrqType};
use crate::stats::Stats;
use crate::watch::{Event, Topic};

/// The longest request that the daemon reads.
pub const LONGEST_REQUEST: u64 = 1 << 20;
/// The longest reply that a client reads.
pub const LONGEST_REPLY: u64 = 64 << 20;

/// What a client asks for. `device` is a label or an index; without it, lines are looked for by
/// name on all devices, and by number if there is but one. No lines means all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Detect,
    Info {
        device: Option<String>,
        lines: Vec<String>,
    },
    Set {
        device: Option<String>,
        values: Vec<(String, bool)>,
    },
    Toggle {
        device: Option<String>,
        lines: Vec<String>,
        count: u64,
        interval_us: u64,
    },
    Swing {
        device: Option<String>,
        lines: Vec<String>,
        count: u64,
    },
    Wire {
        device: Option<String>,
        from: String,
        to: Option<String>,
        /// The device of `to`. Without it, `to` is a line of the device of `from`, or the only one
        /// of this name.
        to_device: Option<String>,
    },
    /// Programs the EEPROM, or reads all of it.
    Eeprom {
        device: Option<String>,
        program: Option<(u16, Vec<u8>)>,
    },
    Watch {
        device: Option<String>,
        lines: Vec<String>,
        topic: Topic,
    },
    Stats {
        device: Option<String>,
        reset: bool,
    },
    FaultSet {
        device: Option<String>,
        faults: Vec<String>,
    },
    FaultList {
        device: Option<String>,
    },
    FaultClear {
        device: Option<String>,
        ids: Vec<u32>,
    },
    Disconnect {
        device: Option<String>,
    },
}

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Done,
    Devices(Vec<Device>),
    Lines(Vec<Line>),
    Stats(Vec<(String, Stats)>),
    Faults(Vec<Fault>),
    Eeprom(Vec<u8>),
    Change(Event),
    Error(String),
}

/// A device in a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub label: String,
    pub socket: String,
    pub lines: u16,
    pub irq: bool,
    pub connected: bool,
}

/// A line in a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub device: String,
    pub line: u16,
    pub name: Option<String>,
    pub level: bool,
    pub host: bool,
    pub direction: Direction,
    pub irq: IrqType,
    pub armed: bool,
    pub latched: bool,
    /// The line of the host that this is.
    pub from: Option<String>,
    /// The line that is wired to this one.
    pub wire: Option<Wire>,
}

/// The end of a wire in a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    pub device: String,
    pub line: u16,
}

/// A fault in a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub device: String,
    pub id: u32,
    pub fault: String,
}

/// Sends one object.
pub fn send(mut to: impl Write, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    Ok(())
}

/// Receives one object, in a line that is no longer than `longest`; `None` at the end.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead, longest: u64) -> Result<Option<T>> {
    let mut line = Vec::new();
    let mut limited = std::io::Read::take(from, longest);
    if limited.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    ensure!(
        (line.len() as u64) < longest || line.ends_with(b"\n"),
        "a message of more than {longest} bytes"
    );
    let message = serde_json::from_slice(&line).context("not a message of the control protocol")?;
    Ok(Some(message))
}
