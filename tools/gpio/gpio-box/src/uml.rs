// SPDX-License-Identifier: GPL-2.0-only

//! The User-Mode Linux process.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{statvfs, StatVfsMountFlags};
use rustix::process::{kill_process_group, set_parent_process_death_signal, Pid, Signal};

/// A guest that is to be started.
pub struct Guest<'a> {
    pub kernel: &'a Path,
    pub memory_mib: u64,
    /// The file for the log of the kernel.
    pub log: &'a Path,
    /// A directory for its own files.
    pub dir: &'a Path,
    /// Virtio devices: their sockets and types.
    pub devices: Vec<(PathBuf, u32)>,
    /// The first process, and its argument.
    pub init: &'a Path,
    pub argument: &'a str,
}

/// A running User-Mode Linux, killed on drop with all its processes.
pub struct Uml {
    child: Child,
}

impl Uml {
    /// Starts it from a thread that lives as long as this process.
    pub fn start(guest: &Guest<'_>) -> Result<Self> {
        let directory = memory_directory(guest.memory_mib)?;
        let log = File::create(guest.log)
            .with_context(|| format!("cannot write {}", guest.log.display()))?;
        let mut command = Command::new(guest.kernel);
        command
            .args(arguments(guest)?)
            .env_clear()
            .env("TMPDIR", directory)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let launcher = rustix::process::getpid();
        // SAFETY: These are system calls, which may be made after a fork.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // It may have died before.
                if rustix::process::getppid() != Some(launcher) {
                    libc::_exit(1);
                }
                Ok(())
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot run the kernel {}", guest.kernel.display()))?;
        Ok(Self { child })
    }

    /// The process, which also is a process group.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Uml {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}

fn arguments(guest: &Guest<'_>) -> Result<Vec<OsString>> {
    let mut words = vec![
        format!("mem={}M", guest.memory_mib).into(),
        "root=/dev/root".into(),
        "rootfstype=hostfs".into(),
        "rootflags=/".into(),
        "rw".into(),
        "con=null".into(),
        "con0=null,fd:1".into(),
        "ssl=null".into(),
        "panic=-1".into(),
        "seccomp=auto".into(),
        "umid=guest".into(),
        format!("uml_dir={}/", guest.dir.display()).into(),
        parameter("init=", guest.init, "")?,
    ];
    for (socket, id) in &guest.devices {
        words.push(parameter("virtio_uml.device=", socket, &format!(":{id}"))?);
    }
    words.push("--".into());
    words.push(guest.argument.into());
    Ok(words)
}

/// A parameter of the kernel with a path, which may have blanks.
fn parameter(name: &str, path: &Path, rest: &str) -> Result<OsString> {
    let mut word = OsString::from("\"");
    word.push(name);
    word.push(path);
    word.push(rest);
    word.push("\"");
    ensure!(
        !path.as_os_str().as_encoded_bytes().contains(&b'"'),
        "{} has a quote: it cannot be given to the kernel",
        path.display()
    );
    Ok(word)
}

/// A directory for a file that has the guest's memory: with room, and without noexec, as programs of
/// the guest run in there.
fn memory_directory(mib: u64) -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let candidates = [
        Some("/dev/shm".into()),
        variable("TMPDIR"),
        variable("XDG_RUNTIME_DIR"),
        Some("/tmp".into()),
    ];
    let mut reasons = Vec::new();
    for dir in candidates.into_iter().flatten() {
        match check(&dir, mib) {
            Ok(()) => return Ok(dir),
            Err(e) => reasons.push(format!("{}: {e:#}", dir.display())),
        }
    }
    bail!(
        "no directory for {mib} MiB of memory ({}): set TMPDIR or --memory",
        reasons.join("; ")
    )
}

fn check(dir: &Path, mib: u64) -> Result<()> {
    let stat = statvfs(dir)?;
    if stat.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        bail!("is mounted noexec");
    }
    let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    ensure!(free >= mib, "has {free} MiB free");
    tempfile::tempfile_in(dir)?;
    Ok(())
}

/// What the log of a kernel that has ended says of that.
pub fn why(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines().any(|line| line.contains("check_ptrace") || line.contains("start_ptraced_child")) {
        return "neither seccomp filters nor ptrace are allowed here: allow one of them".into();
    }
    let panic = lines().find(|line| line.contains("Kernel panic"));
    let line = panic.or_else(|| lines().last());
    line.map_or_else(|| "it did not say why".into(), str::to_owned)
}
