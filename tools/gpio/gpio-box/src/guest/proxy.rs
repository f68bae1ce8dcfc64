// SPDX-License-Identifier: GPL-2.0-only

//! The control socket of vgpio, within the guest.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rustix::net::{shutdown, Shutdown};

use super::vsock;
use crate::copy::copy;
use crate::message::VGPIO;
use crate::streams::spawn;

/// Its path.
pub const SOCKET: &str = "/run/gpio-box/control";

/// Serves the clients of this user.
pub fn start(user: u32, group: u32) -> Result<()> {
    let listener = UnixListener::bind(SOCKET).context("cannot listen for clients of vgpio")?;
    chown(SOCKET, Some(user), Some(group))?;
    spawn(move || {
        for client in listener.incoming().flatten() {
            if let Err(e) = serve(client) {
                eprintln!("gpio-box: a client of vgpio: {e:#}");
            }
        }
    })?;
    Ok(())
}

fn serve(client: UnixStream) -> Result<()> {
    let client = Arc::new(File::from(OwnedFd::from(client)));
    let host = Arc::new(vsock::connect(VGPIO)?);
    pass(client.clone(), host.clone())?;
    pass(host, client)?;
    Ok(())
}

fn pass(from: Arc<File>, to: Arc<File>) -> Result<thread::JoinHandle<()>> {
    spawn(move || {
        // Whatever ends it, the other side has to know.
        let _ = copy(&from, &to);
        let _ = shutdown(&*to, Shutdown::Write);
    })
}
