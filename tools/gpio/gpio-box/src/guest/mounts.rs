// SPDX-License-Identifier: GPL-2.0-only

//! The file systems of the guest: what is not the host's.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::unix::fs::{chown, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{mount as mount_one, MountFlags};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::message::Start;

/// A directory that is in the path of commands.
pub const DIR: &str = "/run/gpio-box";

/// Type, directory and options. Each must be a directory on the host, too, or in an earlier one.
const MOUNTS: [(&str, &str, &CStr); 6] = [
    ("devtmpfs", "/dev", c"mode=755"),
    ("proc", "/proc", c""),
    ("sysfs", "/sys", c""),
    ("devpts", "/dev/pts", c"mode=620,gid=5,ptmxmode=666"),
    ("tmpfs", "/dev/shm", c"mode=1777"),
    ("tmpfs", "/run", c"mode=755"),
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts them all.
pub fn mount() -> Result<()> {
    for (kind, dir, options) in MOUNTS {
        if dir.starts_with("/dev/") {
            fs::create_dir(dir).with_context(|| format!("cannot create {dir}"))?;
        }
        mount_one(kind, dir, kind, MountFlags::empty(), options)
            .with_context(|| format!("cannot mount {kind} on {dir}"))?;
        if dir == "/dev" {
            use_console()?;
        }
    }
    for (target, link) in LINKS {
        symlink(target, link).with_context(|| format!("cannot create {link}"))?;
    }
    Ok(())
}

/// What this process prints goes to the log of the kernel's console.
fn use_console() -> Result<()> {
    let console = File::options().read(true).write(true).open("/dev/console");
    let console = console.context("cannot open /dev/console")?;
    dup2_stdin(&console)?;
    dup2_stdout(&console)?;
    dup2_stderr(&console)?;
    Ok(())
}

/// Makes the directories in /run that the command may look for, and puts vgpio in its path.
pub fn prepare_run(start: &Start) -> Result<()> {
    fs::create_dir(DIR).context("cannot create a directory in /run")?;
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    symlink(program, format!("{DIR}/vgpio")).context("cannot link vgpio")?;
    fs::create_dir_all("/run/user")?;
    let private = format!("/run/user/{}", start.user);
    let of_user = start
        .environment
        .iter()
        .find(|(name, _)| name == "XDG_RUNTIME_DIR");
    let dir = match of_user {
        Some((_, dir)) if Path::new(dir).starts_with("/run") => Path::new(dir),
        _ => Path::new(&private),
    };
    fs::create_dir_all(dir)?;
    chown(dir, Some(start.user), Some(start.group))?;
    Ok(())
}
