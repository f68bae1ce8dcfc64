// SPDX-License-Identifier: GPL-2.0-only

//! The daemon: opens all sockets, serves them until a signal comes, leaves nothing behind.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{ensure, Context, Result};
use log::{debug, info, Level};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vhost::vhost_user::Listener;

use crate::backend;
use crate::config;
use crate::device::Device;
use crate::limit::Limit;
use crate::real::{self, gpiochip, Find};
use crate::server::{Served, Server};
use crate::socket::{self, SocketFile};
use crate::vanish;
use crate::vduse;

/// Serves `devices` and the control socket until SIGTERM or SIGINT.
pub fn serve(devices: &[config::Device], control: &Path) -> Result<()> {
    // Before there is any thread, so that all inherit it.
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot catch signals")?;
    let _serving = start(devices, control)?;

    let mut out = std::io::stdout();
    writeln!(out, "ready")
        .and_then(|()| out.flush())
        .context("cannot print that the sockets are ready")?;
    if let Some(signal) = signals.forever().next() {
        info!(signal; "stopping");
    }
    Ok(())
}

/// Starts threads that serve `devices` and the control socket as long as the process lives. Others
/// find them until the result is dropped.
pub fn start(devices: &[config::Device], control: &Path) -> Result<Serving> {
    start_on(&gpiochip::find, devices, control)
}

/// The same with another host's lines.
pub fn start_on(find: Find<'_>, devices: &[config::Device], control: &Path) -> Result<Serving> {
    vanish::survive()?;

    ensure!(!devices.is_empty(), "no device: use --device or --config");
    let mut labels = HashSet::new();
    let mut descriptions = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        let description = device
            .describe(index)
            .with_context(|| format!("device {index}"))?;
        ensure!(
            labels.insert(description.label.clone()),
            "device {index}: label {:?} is taken: labels must be unique",
            description.label
        );
        descriptions.push(description);
    }

    socket::prepare_default(control)?;
    let tidy = Tidy(control.to_owned());
    let (control_listener, control_file) = socket::listen(control, true)?;
    let mut files = vec![control_file];
    let mut served = Vec::new();
    let mut local = Vec::new();
    for (description, device) in descriptions.into_iter().zip(devices) {
        let label = description.label.clone();
        let host = match &description.host_lines[..] {
            [] => None,
            lines => Some(find(&label, lines).with_context(|| format!("device {label:?}"))?),
        };
        let it = Device::new(description).context("cannot start a thread")?;
        if let Some(host) = host {
            real::start(&it, host).context("cannot start a thread")?;
        }
        let shown = if let Some(name) = &device.vduse {
            local.push((it.clone(), name));
            format!("vduse={name}")
        } else {
            let (listener, file) = socket::listen(&device.socket, false)?;
            files.push(file);
            let it = it.clone();
            spawn(label, move || accept_all(&it, Listener::from(listener)))?;
            device.socket.display().to_string()
        };
        served.push(Served {
            device: it,
            socket: shown,
        });
    }
    let server = Server::new(served);
    spawn("control".into(), move || server.run(&control_listener))?;
    let local = local
        .into_iter()
        .map(|(device, name)| vduse::Served::new(&device, name))
        .collect::<Result<Vec<_>>>()?;
    Ok(Serving {
        _local: local,
        _files: files,
        _tidy: tidy,
    })
}

/// What ends when it is dropped: devices of this machine, and the files of the sockets.
pub struct Serving {
    _local: Vec<vduse::Served>,
    _files: Vec<SocketFile>,
    _tidy: Tidy,
}

fn spawn(name: String, f: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name);
    thread.spawn(f).context("cannot start a thread")?;
    Ok(())
}

/// Serves one front end after the other.
fn accept_all(device: &Arc<Device>, mut listener: Listener) {
    let label = device.description().label.as_str();
    let mut limit = Limit::default();
    loop {
        match backend::serve(device, &mut listener) {
            Ok(()) => {}
            Err(vhost_user_backend::Error::HandleRequest(e)) => {
                debug!(device = label; "connection ended: {e}");
            }
            Err(e) => {
                limit.log(
                    Level::Error,
                    label,
                    format_args!("cannot serve a front end: {e}"),
                );
                thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

/// Removes the directory that was made for the control socket.
struct Tidy(PathBuf);

impl Drop for Tidy {
    fn drop(&mut self) {
        socket::tidy_default(&self.0);
    }
}
