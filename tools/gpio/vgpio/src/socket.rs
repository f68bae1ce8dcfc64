// SPDX-License-Identifier: GPL-2.0-only

//! Listening Unix sockets that replace stale files, spare live ones, and are gone at the end.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::Mode;

/// A socket's file, removed on drop if it is still the one that was made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).ok() == Some(self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Listens on `path`. A `private` socket is for its owner alone, from its first moment on.
///
/// The file mode creation mask belongs to the whole process: call this before there are threads.
pub fn listen(path: &Path, private: bool) -> Result<(UnixListener, SocketFile)> {
    make_way(path)?;
    let mask = private.then(|| rustix::process::umask(Mode::from_raw_mode(0o177)));
    let listener = UnixListener::bind(path);
    if let Some(mask) = mask {
        rustix::process::umask(mask);
    }
    let listener = listener.with_context(|| format!("cannot listen on {}", path.display()))?;
    let identity = identity(path).with_context(|| format!("{} vanished", path.display()))?;
    let file = SocketFile {
        path: path.to_owned(),
        identity,
    };
    Ok((listener, file))
}

/// Removes a socket that has no listener; refuses anything else.
fn make_way(path: &Path) -> Result<()> {
    let shown = path.display();
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("cannot look at {shown}"))?,
    };
    ensure!(
        meta.file_type().is_socket(),
        "{shown} exists and is not a socket: choose another path"
    );
    match UnixStream::connect(path) {
        Ok(_) => bail!("{shown} is in use: another program listens on it, choose another path"),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("cannot replace stale socket {shown}"))
        }
        Err(e) => Err(e).with_context(|| format!("cannot tell whether {shown} is in use")),
    }
}

/// The default path of the control socket.
pub fn default_control() -> PathBuf {
    if let Some(path) = std::env::var_os("VGPIO_CONTROL").filter(|path| !path.is_empty()) {
        return path.into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("vgpio.sock"),
        None => private_dir().join("control.sock"),
    }
}

fn private_dir() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    PathBuf::from(format!("/tmp/vgpio-{user}"))
}

/// Creates the directory of the default control socket, if that is where `path` is.
pub fn prepare_default(path: &Path) -> Result<()> {
    let dir = private_dir();
    if path.parent() == Some(&dir) {
        make_private(&dir)?;
    }
    Ok(())
}

/// Creates a directory that no other user can write to, or they could put a socket of their
/// own there.
fn make_private(dir: &Path) -> Result<()> {
    let shown = dir.display();
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        other => other.with_context(|| format!("cannot create {shown}"))?,
    }
    let meta = fs::symlink_metadata(dir).with_context(|| format!("cannot look at {shown}"))?;
    ensure!(
        meta.is_dir()
            && meta.uid() == rustix::process::getuid().as_raw()
            && meta.mode() & 0o077 == 0,
        "{shown} is not a private directory of yours: remove it or use --control"
    );
    Ok(())
}

/// Removes what [`prepare_default`] created, unless it is in use.
pub fn tidy_default(path: &Path) {
    let dir = private_dir();
    if path.parent() == Some(&dir) {
        let _ = fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{symlink, PermissionsExt};

    use super::*;

    #[test]
    fn private_means_private() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("private");
        make_private(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        make_private(&dir).unwrap();

        let link = top.path().join("link");
        symlink(&dir, &link).unwrap();
        make_private(&link).unwrap_err();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o710)).unwrap();
        make_private(&dir).unwrap_err();
        let file = top.path().join("file");
        fs::write(&file, "").unwrap();
        make_private(&file).unwrap_err();
    }

    #[test]
    fn a_file_that_took_our_place_is_spared() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("socket");
        let (listener, file) = listen(&path, false).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other data").unwrap();
        drop((listener, file));
        assert!(path.exists());

        fs::remove_file(&path).unwrap();
        drop(listen(&path, false).unwrap());
        assert!(!path.exists());
    }
}
