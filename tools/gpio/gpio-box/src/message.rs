// SPDX-License-Identifier: GPL-2.0-only

//! What the launcher and the first process of the guest tell each other, and on which ports.

use std::ffi::OsString;
use std::io::BufRead;

use serde::{Deserialize, Serialize};

/// The messages below.
pub const CONTROL: u32 = 1;
/// The streams of the command.
pub const STDIN: u32 = 2;
pub const STDOUT: u32 = 3;
pub const STDERR: u32 = 4;
/// A client of vgpio's control socket.
pub const VGPIO: u32 = 5;

/// The longest message: environments have a limit, too, and JSON makes four bytes of one.
const LONGEST: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub enum ToGuest {
    Start(Box<Start>),
    Signal(i32),
    Size(Size),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum FromGuest {
    /// The guest is up.
    Ready,
    /// The command has ended, all it wrote was sent, and all files are on the host.
    Exited(u8),
    /// The command cannot be run.
    Failed { status: u8, why: String },
}

/// A command, and what it inherits.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    pub command: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    pub directory: OsString,
    pub user: u32,
    pub group: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    pub hostname: OsString,
    /// Signals that are ignored.
    pub ignored: Vec<i32>,
    /// How many GPIO chips there will be.
    pub chips: usize,
    /// The size of the terminal, if standard input and output are one.
    pub terminal: Option<Size>,
    /// Whether standard error is that terminal, too.
    pub stderr_on_terminal: bool,
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

pub use vgpio::control::send;

/// Receives a message; `None` at the end.
pub fn receive<T: serde::de::DeserializeOwned>(
    from: &mut impl BufRead,
) -> anyhow::Result<Option<T>> {
    vgpio::control::receive(from, LONGEST)
}
