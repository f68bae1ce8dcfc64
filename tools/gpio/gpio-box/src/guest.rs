// SPDX-License-Identifier: GPL-2.0-only

//! The first process of the guest. It is linked statically, as the host's libraries may be of any
//! kind.

mod chips;
mod command;
mod mounts;
mod network;
mod proxy;
mod vsock;

use std::io::BufReader;

use anyhow::{bail, Context, Result};
use rustix::system::{reboot, RebootCommand};

use crate::message::{self, FromGuest, ToGuest, CONTROL};

/// Runs the command of the launcher, which then kills the guest.
pub fn main() -> ! {
    if let Err(e) = run() {
        eprintln!("gpio-box: in the guest: {e:#}");
    }
    power_off();
    loop {
        std::thread::park();
    }
}

fn power_off() {
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
}

fn run() -> Result<()> {
    mounts::mount()?;
    let control = vsock::connect(CONTROL)?;
    message::send(&control, &FromGuest::Ready)?;
    let mut messages = BufReader::new(control.try_clone()?);
    let Some(ToGuest::Start(start)) = message::receive(&mut messages)? else {
        bail!("the launcher has sent no command");
    };
    network::start(&start.hostname)?;
    mounts::prepare_run(&start)?;
    proxy::start(start.user, start.group)?;
    chips::give(start.chips, start.user, start.group)?;
    let answer = match command::start(&start) {
        Ok(command) => {
            let status = command.finish(messages)?;
            FromGuest::Exited(status)
        }
        Err((status, why)) => FromGuest::Failed { status, why },
    };
    rustix::fs::sync();
    message::send(&control, &answer).context("the launcher is gone")?;
    loop {
        std::thread::park();
    }
}
