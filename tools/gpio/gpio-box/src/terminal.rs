// SPDX-License-Identifier: GPL-2.0-only

//! The terminal of the launcher.

use std::io::{stderr, stdin, stdout, IsTerminal};

use anyhow::{Context, Result};
use rustix::termios::{tcgetattr, tcgetwinsize, tcsetattr, OptionalActions, Termios};

use crate::message::Size;

/// Whether the command gets a terminal.
pub fn wanted() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// Whether standard error is a terminal.
pub fn has_errors() -> bool {
    stderr().is_terminal()
}

pub fn size() -> Size {
    let size = tcgetwinsize(stdout()).ok();
    Size {
        rows: size.map_or(24, |it| it.ws_row),
        columns: size.map_or(80, |it| it.ws_col),
    }
}

/// The modes of the terminal, restored on drop.
pub struct Modes(Termios);

impl Modes {
    pub fn save() -> Option<Self> {
        tcgetattr(stdin()).ok().map(Self)
    }

    pub fn restore(&self) {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.0);
    }

    /// Leaves all to the terminal in the guest.
    pub fn make_raw(&self) -> Result<()> {
        let mut raw = self.0.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw).context("cannot set up the terminal")
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        self.restore();
    }
}
