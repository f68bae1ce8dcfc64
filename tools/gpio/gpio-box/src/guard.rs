// SPDX-License-Identifier: GPL-2.0-only

//! A process that cleans up if the launcher is killed.
//!
//! The launcher holds the other end of a pipe; however it dies, the pipe ends.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::pipe::{pipe_with, PipeFlags};
use rustix::process::{kill_process_group, waitpid, Pid, Signal, WaitOptions};

use crate::terminal::Modes;

pub struct Guard {
    pipe: File,
    pid: Pid,
}

impl Guard {
    /// Starts the guard, while there is but one thread. If the launcher is killed, it removes `dir`
    /// and restores `modes`.
    pub fn start(dir: &Path, modes: Option<&Modes>) -> Result<Self> {
        let (end, pipe) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        // SAFETY: There is one thread, hence no lock that another one holds.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error()).context("cannot fork"),
            0 => {
                drop(pipe);
                guard(end.into(), dir, modes);
                // SAFETY: It takes any status.
                unsafe { libc::_exit(0) }
            }
            pid => Ok(Self {
                pipe: pipe.into(),
                pid: Pid::from_raw(pid).context("no process")?,
            }),
        }
    }

    /// Adds a process group to what is to be killed.
    pub fn watch(&self, group: Pid) -> Result<()> {
        let group = group.as_raw_nonzero().get();
        let written = (&self.pipe).write_all(&group.to_ne_bytes());
        written.context("the guard is gone")
    }

    /// Ends the guard: nothing is left to clean up.
    pub fn dismiss(mut self) {
        let _ = self.pipe.write_all(&0_i32.to_ne_bytes());
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}

fn guard(mut pipe: File, dir: &Path, modes: Option<&Modes>) {
    detach(&pipe, modes.is_some());
    let mut groups = Vec::new();
    let mut number = [0; 4];
    while pipe.read_exact(&mut number).is_ok() {
        match Pid::from_raw(i32::from_ne_bytes(number)) {
            Some(group) => groups.push(group),
            None => return,
        }
    }
    for group in groups {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = std::fs::remove_dir_all(dir);
    if let Some(modes) = modes {
        modes.restore();
    }
}

/// Leaves the session of the launcher, and its descriptors but for `pipe`, and the terminal on
/// request: who reads what it writes must not wait for the guard.
fn detach(pipe: &File, keep_terminal: bool) {
    let _ = rustix::process::setsid();
    let pipe = pipe.as_raw_fd();
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for fd in i32::from(keep_terminal)..3 {
            // SAFETY: The standard streams are for this process to replace.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
    }
    // SAFETY: What is closed was inherited, and nothing here refers to it.
    unsafe {
        libc::close_range(3, pipe as u32 - 1, 0);
        libc::close_range(pipe as u32 + 1, u32::MAX, 0);
    }
}
