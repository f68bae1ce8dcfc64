// SPDX-License-Identifier: GPL-2.0-only

//! The name of the guest, and its loopback network.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::{ensure, Context, Result};
use rustix::net::{socket, AddressFamily, SocketType};
use std::os::fd::AsRawFd;

pub fn start(hostname: &OsStr) -> Result<()> {
    rustix::system::sethostname(hostname.as_bytes()).context("cannot set the name")?;
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: All fields are integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: It reads `request`.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    ensure!(status == 0, "cannot start the loopback network");
    Ok(())
}
