// SPDX-License-Identifier: GPL-2.0-only

//! Connections to the launcher.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::packet::HOST_CID;

/// Connects to a port of the launcher.
pub fn connect(port: u32) -> Result<File> {
    connect_to(port).with_context(|| format!("cannot connect to port {port} of the launcher"))
}

fn connect_to(port: u32) -> io::Result<File> {
    // SAFETY: It takes any arguments.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The descriptor is new, and nothing else refers to it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: All fields are integers.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = HOST_CID as u32;
    address.svm_port = port;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` is an address of this length.
    let status = unsafe { libc::connect(fd, (&raw const address).cast(), len) };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket.into())
}
