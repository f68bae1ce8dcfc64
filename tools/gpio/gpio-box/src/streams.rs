// SPDX-License-Identifier: GPL-2.0-only

//! The streams of the launcher, and what the guest reaches on which port.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, stderr, stdin, stdout};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};

use crate::copy::copy;
use crate::message::{CONTROL, STDERR, STDIN, STDOUT, VGPIO};
use crate::vsock::Connect;

pub struct Streams {
    pub control: UnixStream,
    input: UnixStream,
    output: UnixStream,
    errors: UnixStream,
}

impl Streams {
    /// Makes the streams. The guest connects to each of them once, and to the socket at `vgpio` as
    /// often as it likes.
    pub fn new(vgpio: PathBuf) -> Result<(Self, Connect)> {
        let mut ports = HashMap::new();
        let mut pair = |port| -> Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
            ports.insert(port, theirs);
            Ok(ours)
        };
        let streams = Self {
            control: pair(CONTROL)?,
            input: pair(STDIN)?,
            output: pair(STDOUT)?,
            errors: pair(STDERR)?,
        };
        let connect = move |port| match port {
            VGPIO => UnixStream::connect(&vgpio).ok(),
            _ => ports.remove(&port),
        };
        Ok((streams, Box::new(connect)))
    }

    /// Copies standard input to the guest, and its output to ours. Calls `finished` when the guest
    /// has ended its output.
    pub fn start(self, finished: impl FnOnce() + Send + 'static) -> Result<()> {
        let input = file(stdin())?;
        let guest = file(&self.input)?;
        spawn(move || {
            // An error is as good as the end.
            let _ = copy(&input, &guest);
            let _ = self.input.shutdown(Shutdown::Write);
        })?;
        let errors = file(stderr())?;
        let guest = File::from(OwnedFd::from(self.errors));
        let errors = spawn(move || drop(copy(&guest, &errors)))?;
        let output = file(stdout())?;
        let guest = File::from(OwnedFd::from(self.output));
        spawn(move || {
            let _ = copy(&guest, &output);
            // Nobody reads it: tell the guest.
            drop(guest);
            let _ = errors.join();
            finished();
        })?;
        Ok(())
    }
}

fn file(stream: impl AsFd) -> Result<File> {
    let copy = stream.as_fd().try_clone_to_owned();
    Ok(copy.context("cannot copy a descriptor")?.into())
}

/// Starts a thread.
pub fn spawn(f: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    let started: io::Result<_> = thread::Builder::new().spawn(f);
    started.context("cannot start a thread")
}
