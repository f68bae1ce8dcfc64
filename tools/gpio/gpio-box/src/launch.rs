// SPDX-License-Identifier: GPL-2.0-only

//! The launcher: starts the guest, gives it the command, and passes signals on.

use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::Mode;
use rustix::process::{waitid, Pid, WaitId, WaitIdOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

use crate::guard::Guard;
use crate::message::{self, FromGuest, Start, ToGuest};
use crate::options::Options;
use crate::streams::{spawn, Streams};
use crate::terminal::{self, Modes};
use crate::uml::{self, Guest, Uml};
use crate::vsock;

const VIRTIO_ID_GPIO: u32 = 41;

/// Signals that reach the command.
const PASSED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// What the launcher waits for.
enum Event {
    Signal(i32),
    Message(FromGuest),
    /// The guest has sent the last output of the command.
    Finished,
    /// The guest's kernel has ended.
    Ended,
}

/// Runs the command, and returns its exit status.
pub fn run(options: &Options) -> Result<u8> {
    let dir = directory()?;
    let modes = terminal::wanted().then(Modes::save).flatten();
    // Before there are threads.
    let guard = Guard::start(dir.path(), modes.as_ref())?;
    let start = inherited(options, modes.is_some())?;
    let status = run_in(dir.path(), options, start, modes.as_ref(), &guard);
    drop(modes);
    drop(dir);
    guard.dismiss();
    status
}

/// A directory for sockets. Their paths are limited in length, and are words of the kernel's command
/// line that end at a colon.
fn directory() -> Result<TempDir> {
    let temporary = std::env::temp_dir();
    let path = temporary.as_os_str().as_encoded_bytes();
    let fit = path.len() <= 80 && !path.iter().any(|byte| b": \"".contains(byte));
    let dir = if fit { &temporary } else { Path::new("/tmp") };
    let made = tempfile::Builder::new().prefix("gpio-box-").tempdir_in(dir);
    made.with_context(|| format!("cannot create a directory in {}: set TMPDIR", dir.display()))
}

/// The command, and what it inherits from this process.
fn inherited(options: &Options, on_terminal: bool) -> Result<Start> {
    let directory = std::env::current_dir().context("cannot tell the current directory")?;
    let umask = rustix::process::umask(Mode::empty());
    rustix::process::umask(umask);
    let groups = rustix::process::getgroups().context("cannot tell the groups")?;
    let system = rustix::system::uname();
    Ok(Start {
        command: options.command.clone(),
        environment: std::env::vars_os().collect(),
        directory: directory.into(),
        user: rustix::process::getuid().as_raw(),
        group: rustix::process::getgid().as_raw(),
        groups: groups
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect(),
        umask: umask.as_raw_mode(),
        hostname: std::ffi::OsStr::from_bytes(system.nodename().to_bytes()).into(),
        ignored: PASSED.into_iter().filter(|it| is_ignored(*it)).collect(),
        chips: options.devices().len(),
        terminal: on_terminal.then(terminal::size),
        stderr_on_terminal: on_terminal && terminal::has_errors(),
    })
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: All fields are integers or a function that may be missing.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: It sets nothing, and writes to `action`.
    let status = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    status == 0 && action.sa_sigaction == libc::SIG_IGN
}

fn run_in(
    dir: &Path,
    options: &Options,
    start: Start,
    modes: Option<&Modes>,
    guard: &Guard,
) -> Result<u8> {
    let (sender, events) = mpsc::channel();
    pass_signals(&start.ignored, sender.clone())?;

    let mut devices = options.devices();
    for (index, device) in devices.iter_mut().enumerate() {
        device.socket = dir.join(format!("gpio{index}"));
    }
    let vgpio = dir.join("vgpio");
    let _serving = vgpio::serve::start(&devices, &vgpio)?;
    let (streams, connect) = Streams::new(vgpio)?;
    let mut sockets: Vec<_> = devices
        .into_iter()
        .map(|it| (it.socket, VIRTIO_ID_GPIO))
        .collect();
    let socket = dir.join("vsock");
    let listener = UnixListener::bind(&socket).context("cannot listen on a socket")?;
    sockets.push((socket, vsock::VIRTIO_ID));
    spawn(move || drop(vsock::serve(listener, connect)))?;

    let log = options.log.clone().unwrap_or_else(|| dir.join("log"));
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let uml = Uml::start(&Guest {
        kernel: &kernel(options, &program)?,
        memory_mib: options.memory,
        log: &log,
        dir,
        devices: sockets,
        init: &program,
        argument: crate::IN_GUEST,
    })?;
    guard.watch(uml.pid())?;
    tell_end(uml.pid(), sender.clone())?;
    let control = streams.control.try_clone()?;
    pass_messages(control.try_clone()?, sender.clone())?;

    let mut waiting = Some((start, streams));
    let mut status = None;
    let mut finished = false;
    while !finished || status.is_none() {
        match events.recv()? {
            Event::Message(FromGuest::Ready) => {
                let (start, streams) = waiting.take().context("the guest has restarted")?;
                if let Some(modes) = modes {
                    modes.make_raw()?;
                }
                message::send(&control, &ToGuest::Start(Box::new(start)))?;
                let sender = sender.clone();
                streams.start(move || drop(sender.send(Event::Finished)))?;
            }
            Event::Message(FromGuest::Failed { status, why }) => {
                modes.inspect(|modes| modes.restore());
                eprintln!("gpio-box: {why}");
                return Ok(status);
            }
            Event::Message(FromGuest::Exited(code)) => status = Some(code),
            Event::Finished => finished = true,
            Event::Signal(SIGWINCH) => {
                if modes.is_some() && waiting.is_none() {
                    message::send(&control, &ToGuest::Size(terminal::size()))?;
                }
            }
            // There is no command, or none any more.
            Event::Signal(signal) if waiting.is_some() || status.is_some() => {
                return Ok(128 + signal as u8);
            }
            Event::Signal(signal) => message::send(&control, &ToGuest::Signal(signal))?,
            Event::Ended => bail!("the guest's kernel has ended: {}", uml::why(&log)),
        }
    }
    status.context("no status")
}

/// The kernel of the user's choice, or the one beside `program`.
fn kernel(options: &Options, program: &Path) -> Result<PathBuf> {
    let kernel = match &options.kernel {
        Some(kernel) => kernel.clone(),
        None => program.with_file_name("linux"),
    };
    ensure!(
        kernel.is_file(),
        "no kernel at {}: copy it there, or use --kernel",
        kernel.display()
    );
    kernel
        .canonicalize()
        .context("cannot resolve the kernel's path")
}

fn pass_signals(ignored: &[i32], sender: Sender<Event>) -> Result<()> {
    let passed = PASSED.into_iter().filter(|it| !ignored.contains(it));
    let signals = Signals::new(passed.chain([SIGWINCH]));
    let mut signals = signals.context("cannot catch signals")?;
    spawn(move || {
        for signal in signals.forever() {
            let _ = sender.send(Event::Signal(signal));
        }
    })?;
    Ok(())
}

/// Tells of the end of a child, which stays there to be waited for.
fn tell_end(child: Pid, sender: Sender<Event>) -> Result<()> {
    spawn(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(
            waitid(WaitId::Pid(child), options),
            Err(rustix::io::Errno::INTR)
        ) {}
        let _ = sender.send(Event::Ended);
    })?;
    Ok(())
}

fn pass_messages(control: UnixStream, sender: Sender<Event>) -> Result<()> {
    let mut control = BufReader::new(control);
    spawn(move || {
        while let Ok(Some(message)) = message::receive(&mut control) {
            let _ = sender.send(Event::Message(message));
        }
    })?;
    Ok(())
}
