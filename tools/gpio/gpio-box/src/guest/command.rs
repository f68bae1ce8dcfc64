// SPDX-License-Identifier: GPL-2.0-only

//! The command: what it is started with, and its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::fs::{fchown, Gid, Uid};
use rustix::net::{shutdown, Shutdown};
use rustix::pipe::{pipe_with, PipeFlags};
use rustix::process::{
    kill_process, kill_process_group, wait, Pid, Signal, WaitOptions, WaitStatus,
};
use rustix::pty::{ioctl_tiocgptpeer, openpt, unlockpt, OpenptFlags};
use rustix::termios::{tcsetwinsize, Winsize};

use super::{mounts, proxy, vsock};
use crate::copy::copy;
use crate::message::{self, Size, Start, ToGuest, STDERR, STDIN, STDOUT};
use crate::streams::spawn;

/// A command that runs.
pub struct Running {
    pid: Pid,
    terminal: Option<Arc<File>>,
    /// The threads that send its output.
    outputs: Vec<JoinHandle<()>>,
}

/// Starts the command. An error has an exit status, as a shell has it.
pub fn start(start: &Start) -> Result<Running, (u8, String)> {
    let Some((program, arguments)) = start.command.split_first() else {
        return Err((crate::FAILED, "no command".into()));
    };
    let shown = program.to_string_lossy();
    std::env::set_current_dir(&start.directory).map_err(|e| {
        let directory = start.directory.to_string_lossy();
        (crate::FAILED, format!("cannot change to {directory}: {e}"))
    })?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    command.envs(environment(start));
    let failed = |e: anyhow::Error| (crate::FAILED, format!("cannot start {shown}: {e:#}"));
    let (terminal, outputs) = connect(start, &mut command).map_err(failed)?;
    inherit(start, &mut command);
    match command.spawn() {
        Ok(child) => Ok(Running {
            pid: Pid::from_child(&child),
            terminal,
            outputs,
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => Err((127, format!("{shown}: not found"))),
        Err(e) => Err((126, format!("cannot run {shown}: {e}"))),
    }
}

/// The environment of the launcher, and what finds vgpio.
fn environment(start: &Start) -> Vec<(OsString, OsString)> {
    let mut environment = start.environment.clone();
    for (name, value) in &mut environment {
        if name == "PATH" {
            value.push(":");
            value.push(mounts::DIR);
        }
    }
    environment.push(("VGPIO_CONTROL".into(), proxy::SOCKET.into()));
    environment
}

type Connected = (Option<Arc<File>>, Vec<JoinHandle<()>>);

/// Connects the streams of the command to the launcher: by a terminal, or by pipes.
fn connect(start: &Start, command: &mut Command) -> Result<Connected> {
    let [stdin, stdout, stderr] = [STDIN, STDOUT, STDERR].map(vsock::connect);
    let (stdin, stdout, stderr) = (stdin?, stdout?, stderr?);
    let own = |fd: &OwnedFd| {
        fchown(
            fd,
            Some(Uid::from_raw(start.user)),
            Some(Gid::from_raw(start.group)),
        )
    };
    let mut outputs = Vec::new();
    let mut output = |to: File| -> Result<OwnedFd> {
        let (from, end) = pipe_with(PipeFlags::CLOEXEC)?;
        own(&end)?;
        outputs.push(spawn(move || send(&from.into(), &to))?);
        Ok(end)
    };
    let Some(size) = start.terminal else {
        let (end, to) = pipe_with(PipeFlags::CLOEXEC)?;
        own(&end)?;
        command
            .stdin(end)
            .stdout(output(stdout)?)
            .stderr(output(stderr)?);
        spawn(move || drop(copy(&stdin, &to.into())))?;
        return Ok((None, outputs));
    };
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    own(&slave)?;
    let master = Arc::new(File::from(master));
    resize(&master, size)?;
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?);
    if start.stderr_on_terminal {
        command.stderr(slave);
    } else {
        command.stderr(output(stderr)?);
    }
    let input = master.clone();
    spawn(move || drop(copy(&stdin, &input)))?;
    let from = master.clone();
    outputs.push(spawn(move || send(&from, &stdout))?);
    Ok((Some(master), outputs))
}

/// Sends the launcher all that comes `from` the command.
fn send(from: &File, to: &File) {
    // The end of a terminal is an error; an error of the launcher is for the command, by a signal.
    let _ = copy(from, to);
    let _ = shutdown(to, Shutdown::Write);
}

fn resize(terminal: &File, size: Size) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Gives the command the identity of the launcher.
fn inherit(start: &Start, command: &mut Command) {
    let groups: Vec<_> = start.groups.iter().map(|it| Gid::from_raw(*it)).collect();
    let (user, group) = (Uid::from_raw(start.user), Gid::from_raw(start.group));
    let umask = rustix::fs::Mode::from_raw_mode(start.umask);
    let ignored = start.ignored.clone();
    let on_terminal = start.terminal.is_some();
    // SAFETY: These are system calls, which may be made after a fork.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if on_terminal {
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            }
            for signal in &ignored {
                libc::signal(*signal, libc::SIG_IGN);
            }
            rustix::process::umask(umask);
            rustix::thread::set_thread_groups(&groups)?;
            rustix::thread::set_thread_res_gid(group, group, group)?;
            rustix::thread::set_thread_res_uid(user, user, user)?;
            Ok(())
        });
    }
}

impl Running {
    /// Passes signals and sizes to the command until it ends, and ends all other processes then.
    /// Returns the exit status when all output was sent.
    pub fn finish(self, messages: BufReader<File>) -> Result<u8> {
        let (pid, terminal) = (self.pid, self.terminal.clone());
        spawn(move || {
            pass(messages, pid, terminal.as_deref());
            // The launcher is gone.
            super::power_off();
        })?;
        let status = loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((ended, status))) if ended == pid => break status,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("cannot wait for the command"),
            }
        };
        // SAFETY: It takes any arguments.
        unsafe { libc::kill(-1, libc::SIGKILL) };
        while wait(WaitOptions::empty()).is_ok() {}
        for output in self.outputs {
            let _ = output.join();
        }
        Ok(code(status))
    }
}

fn code(status: WaitStatus) -> u8 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => status as u8,
        (None, signal) => 128 + signal.unwrap_or_default() as u8,
    }
}

fn pass(mut messages: BufReader<File>, pid: Pid, terminal: Option<&File>) {
    while let Ok(Some(message)) = message::receive(&mut messages) {
        match (message, terminal) {
            (ToGuest::Signal(signal), _) => {
                if let Some(signal) = Signal::from_named_raw(signal) {
                    deliver(pid, signal);
                }
            }
            (ToGuest::Size(size), Some(terminal)) => drop(resize(terminal, size)),
            _ => {}
        }
    }
}

/// Delivers a signal to the command; those of a keyboard to its process group.
fn deliver(pid: Pid, signal: Signal) {
    let _ = match signal {
        Signal::INT | Signal::QUIT => kill_process_group(pid, signal),
        _ => kill_process(pid, signal),
    };
}
