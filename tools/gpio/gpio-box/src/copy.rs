// SPDX-License-Identifier: GPL-2.0-only

//! Copies a stream until it ends.

use std::fs::File;
use std::io::{ErrorKind, Read, Result, Write};
use std::os::fd::AsFd;

use rustix::event::{poll, PollFd, PollFlags};

/// Copies all of `from`. Waits where descriptors do not block, as others may have set them so.
pub fn copy(mut from: &File, mut to: &File) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut rest = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => &buffer[..count],
            Err(e) => {
                wait(from, PollFlags::IN, e)?;
                continue;
            }
        };
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(e) => wait(to, PollFlags::OUT, e)?,
            }
        }
    }
}

/// Waits until the descriptor is ready if that is all that `error` says.
fn wait(file: &File, until: PollFlags, error: std::io::Error) -> Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock => {
            let _ = poll(&mut [PollFd::from_borrowed_fd(file.as_fd(), until)], None);
            Ok(())
        }
        _ => Err(error),
    }
}
